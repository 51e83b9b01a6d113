/* See squeeze.h. Contexts are made at first use: most connections need one of them, or none. */
#include "squeeze.h"

#include <limits.h>
#include <lz4.h>
#include <zstd.h>

/* 2^22: what both sides keep of the stream. A decoder refuses a stream that asks for more. */
enum { WINDOW_LOG = 22, LEVEL = 1 };

struct sp_squeezer {
    ZSTD_CCtx *zstd;
};

struct sp_unsqueezer {
    ZSTD_DCtx *zstd;
};

struct sp_squeezer *sp_squeezer_new(void)
{
    return calloc(1, sizeof(struct sp_squeezer));
}

void sp_squeezer_free(struct sp_squeezer *squeezer)
{
    if (squeezer)
        ZSTD_freeCCtx(squeezer->zstd);
    free(squeezer);
}

static enum sp_squeeze with_lz4(const uint8_t *data, size_t bytes, struct sp_vector *out)
{
    if (bytes == 0 || bytes > LZ4_MAX_INPUT_SIZE)
        return SP_SQUEEZE_NONE;
    if (!sp_vector_reserve(out, bytes))
        return SP_SQUEEZE_COUNT;
    /* One byte less than it had: what does not shrink fails. */
    int made = LZ4_compress_default((const char *)data, (char *)out->data + out->bytes, (int)bytes, (int)bytes - 1);
    if (made <= 0)
        return SP_SQUEEZE_NONE;
    out->bytes += (size_t)made;
    return SP_SQUEEZE_LZ4;
}

static enum sp_squeeze with_zstd(struct sp_squeezer *squeezer, const uint8_t *data, size_t bytes, struct sp_vector *out)
{
    if (!squeezer->zstd) {
        squeezer->zstd = ZSTD_createCCtx();
        if (!squeezer->zstd || ZSTD_isError(ZSTD_CCtx_setParameter(squeezer->zstd, ZSTD_c_compressionLevel, LEVEL)) ||
            ZSTD_isError(ZSTD_CCtx_setParameter(squeezer->zstd, ZSTD_c_windowLog, WINDOW_LOG)))
            return SP_SQUEEZE_COUNT;
    }
    if (!sp_vector_reserve(out, ZSTD_compressBound(bytes) + 64))
        return SP_SQUEEZE_COUNT;
    ZSTD_inBuffer in = {data, bytes, 0};
    size_t left;
    do {
        if (!sp_vector_reserve(out, 4096))
            return SP_SQUEEZE_COUNT;
        ZSTD_outBuffer to = {out->data, out->capacity, out->bytes};
        left = ZSTD_compressStream2(squeezer->zstd, &to, &in, ZSTD_e_flush);
        out->bytes = to.pos;
    } while (!ZSTD_isError(left) && left > 0);
    return ZSTD_isError(left) ? SP_SQUEEZE_COUNT : SP_SQUEEZE_ZSTD;
}

enum sp_squeeze sp_squeeze(struct sp_squeezer *squeezer, enum sp_squeeze method, const uint8_t *data, size_t bytes,
                           struct sp_vector *out)
{
    if (method == SP_SQUEEZE_LZ4)
        return with_lz4(data, bytes, out);
    return method == SP_SQUEEZE_ZSTD ? with_zstd(squeezer, data, bytes, out) : SP_SQUEEZE_NONE;
}

struct sp_unsqueezer *sp_unsqueezer_new(void)
{
    return calloc(1, sizeof(struct sp_unsqueezer));
}

void sp_unsqueezer_free(struct sp_unsqueezer *unsqueezer)
{
    if (unsqueezer)
        ZSTD_freeDCtx(unsqueezer->zstd);
    free(unsqueezer);
}

static bool from_zstd(struct sp_unsqueezer *unsqueezer, const uint8_t *data, size_t data_bytes, uint8_t *out,
                      size_t bytes)
{
    if (!unsqueezer->zstd) {
        unsqueezer->zstd = ZSTD_createDCtx();
        if (!unsqueezer->zstd ||
            ZSTD_isError(ZSTD_DCtx_setParameter(unsqueezer->zstd, ZSTD_d_windowLogMax, WINDOW_LOG)))
            return false;
    }
    ZSTD_inBuffer in = {data, data_bytes, 0};
    ZSTD_outBuffer to = {out, bytes, 0};
    while (in.pos < in.size) {
        size_t before_in = in.pos, before_out = to.pos;
        size_t left = ZSTD_decompressStream(unsqueezer->zstd, &to, &in);
        /* A frame that ends: the stream has none. No progress: there is more than was announced. */
        if (ZSTD_isError(left) || left == 0 || (in.pos == before_in && to.pos == before_out))
            return false;
    }
    /* What is decoded but not yet given out, when the output was full, shows as one more byte. */
    uint8_t extra;
    ZSTD_outBuffer beyond = {&extra, 1, 0};
    return to.pos == bytes && !ZSTD_isError(ZSTD_decompressStream(unsqueezer->zstd, &beyond, &in)) && beyond.pos == 0;
}

bool sp_unsqueeze(struct sp_unsqueezer *unsqueezer, enum sp_squeeze method, const uint8_t *data, size_t data_bytes,
                  uint8_t *out, size_t bytes)
{
    if (method == SP_SQUEEZE_ZSTD)
        return from_zstd(unsqueezer, data, data_bytes, out, bytes);
    if (data_bytes > INT_MAX || bytes > INT_MAX)
        return false;
    if (method == SP_SQUEEZE_LZ4)
        return LZ4_decompress_safe((const char *)data, (char *)out, (int)data_bytes, (int)bytes) == (int)bytes;
    if (data_bytes != bytes)
        return false;
    memcpy(out, data, bytes);
    return true;
}
