/* See pack.h. */
#include "pack.h"

#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "record.h"

enum {
    ZSTD_LEVEL = 1,
    /* Packed this small, a page is not worth another try. */
    SMALL_ENOUGH = 512,
    /* lz4 reads back four times as fast as zstd, so zstd must save at least this much more. */
    ZSTD_MUST_SAVE = 384,
};

struct sp_packer {
    ZSTD_CCtx *zstd;
    ZSTD_DCtx *unzstd;
    void *lz4;
    uint8_t other[SP_PACK_ROOM];
};

void sp_packer_free(struct sp_packer *packer)
{
    if (!packer)
        return;
    ZSTD_freeCCtx(packer->zstd);
    ZSTD_freeDCtx(packer->unzstd);
    free(packer->lz4);
    free(packer);
}

struct sp_packer *sp_packer_new(void)
{
    struct sp_packer *packer = calloc(1, sizeof *packer);
    if (!packer)
        return NULL;
    packer->zstd = ZSTD_createCCtx();
    packer->unzstd = ZSTD_createDCtx();
    packer->lz4 = malloc((size_t)LZ4_sizeofState());
    if (packer->zstd && packer->unzstd && packer->lz4)
        return packer;
    sp_packer_free(packer);
    return NULL;
}

size_t sp_pack_as(struct sp_packer *packer, enum sp_packing packing, const uint8_t *page, uint8_t *out)
{
    size_t bytes = 0;
    out[0] = (uint8_t)packing;
    if (packing == SP_PACKING_WORDS) {
        bytes = sp_words_pack(page, out + 1);
    } else if (packing == SP_PACKING_LZ4) {
        int got = LZ4_compress_fast_extState(packer->lz4, (const char *)page, (char *)out + 1, SP_PAGE_BYTES,
                                             SP_PACK_ROOM - 1, 1);
        bytes = got > 0 ? (size_t)got : 0;
    } else if (packing == SP_PACKING_ZSTD) {
        size_t got = ZSTD_compressCCtx(packer->zstd, out + 1, SP_PACK_ROOM - 1, page, SP_PAGE_BYTES, ZSTD_LEVEL);
        bytes = ZSTD_isError(got) ? 0 : got;
    }
    return bytes ? bytes + 1 : 0;
}

/*
 * The word codec first: pages of pointers and small numbers end there. lz4 tells what kind of page the others are: what it
 * cannot shorten at all, zstd hardly can.
 */
size_t sp_pack(struct sp_packer *packer, const uint8_t *page, uint8_t *out)
{
    size_t best = sp_pack_as(packer, SP_PACKING_WORDS, page, out);
    if (best <= SMALL_ENOUGH)
        return best;
    size_t lz4 = sp_pack_as(packer, SP_PACKING_LZ4, page, packer->other);
    if (lz4 > 0 && lz4 < best) {
        memcpy(out, packer->other, lz4);
        best = lz4;
    }
    if (best > SMALL_ENOUGH && best < SP_PAGE_BYTES - 64) {
        size_t zstd = sp_pack_as(packer, SP_PACKING_ZSTD, page, packer->other);
        if (zstd > 0 && (zstd + ZSTD_MUST_SAVE <= best || (best > SP_PACKED_BYTES_MAX && zstd <= SP_PACKED_BYTES_MAX))) {
            memcpy(out, packer->other, zstd);
            best = zstd;
        }
    }
    return best <= SP_PACKED_BYTES_MAX ? best : 0;
}

bool sp_unpack(struct sp_packer *packer, const uint8_t *packed, size_t bytes, uint8_t *page)
{
    if (bytes < 2 || bytes > SP_PACK_ROOM)
        return false;
    const uint8_t *data = packed + 1;
    size_t length = bytes - 1;
    switch (packed[0]) {
    case SP_PACKING_WORDS:
        return sp_words_unpack(data, length, page);
    case SP_PACKING_LZ4:
        return LZ4_decompress_safe((const char *)data, (char *)page, (int)length, SP_PAGE_BYTES) == SP_PAGE_BYTES;
    case SP_PACKING_ZSTD:
        return ZSTD_decompressDCtx(packer->unzstd, page, SP_PAGE_BYTES, data, length) == SP_PAGE_BYTES;
    default:
        return false;
    }
}

size_t sp_patch_make(const uint8_t *page, const uint8_t *reference, uint8_t *out)
{
    uint8_t shadow[SP_PAGE_BYTES] __attribute__((aligned(64)));
    struct sp_capture_stats stats = {0};
    memcpy(shadow, reference, SP_PAGE_BYTES);
    size_t bytes = sp_kernels_chosen()->capture[SP_CODEC_MASKED][false](page, shadow, out, &stats);
    return bytes <= SP_PATCH_BYTES_MAX ? bytes : 0;
}

bool sp_patch_apply(uint8_t *page, const uint8_t *patch, size_t bytes)
{
    struct sp_record record;
    const char *problem = NULL;
    if (sp_record_parse(SP_CODEC_MASKED, patch, patch + bytes, &record, &problem) != patch + bytes)
        return false;
    if (record.form == SP_FORM_MASKED)
        sp_kernels_chosen()->apply_masked(page, &record.masked);
    else if (record.form == SP_FORM_ZERO)
        memset(page, 0, SP_PAGE_BYTES);
    else
        memcpy(page, record.data, SP_PAGE_BYTES);
    return true;
}
