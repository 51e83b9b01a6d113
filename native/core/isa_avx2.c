/* The AVX2 path: 32-byte compares, pext and pdep for packing. Built with -mavx2 -mbmi -mbmi2 -mpopcnt -mlzcnt. */
#include <immintrin.h>

#include "bytes.h"
#include "kernels.h"

/*
 * 0xff in byte i for every set bit i. A table of 2 KiB, because pdep, pext and multiplication share one execution port
 * and the word loops are bound by it.
 */
#define SPREAD_1(b)                                                                                                     \
    ((b) >> 0 & 1) * 0xffull | ((b) >> 1 & 1) * 0xff00ull | ((b) >> 2 & 1) * 0xff0000ull |                              \
        ((b) >> 3 & 1) * 0xff000000ull | ((b) >> 4 & 1) * 0xff00000000ull | ((b) >> 5 & 1) * 0xff0000000000ull |        \
        ((b) >> 6 & 1) * 0xff000000000000ull | ((b) >> 7 & 1) * 0xff00000000000000ull
#define SPREAD_4(b) SPREAD_1(b), SPREAD_1(b + 1), SPREAD_1(b + 2), SPREAD_1(b + 3)
#define SPREAD_16(b) SPREAD_4(b), SPREAD_4(b + 4), SPREAD_4(b + 8), SPREAD_4(b + 12)
#define SPREAD_64(b) SPREAD_16(b), SPREAD_16(b + 16), SPREAD_16(b + 32), SPREAD_16(b + 48)

static const uint64_t spread[256] = {SPREAD_64(0ull), SPREAD_64(64ull), SPREAD_64(128ull), SPREAD_64(192ull)};

static inline uint64_t spread_bits(unsigned byte)
{
    return spread[byte];
}

static inline uint64_t gather_bits(uint64_t x, uint64_t mask)
{
    return _pext_u64(x, mask);
}

static inline uint64_t scatter_bits(uint64_t x, uint64_t mask)
{
    return _pdep_u64(x, mask);
}

static inline void put_word_indexes(uint16_t *to, unsigned words, unsigned line)
{
    uint64_t packed = _pext_u64(0x0706050403020100u, spread_bits(words));
    __m128i wide = _mm_cvtepu8_epi16(_mm_cvtsi64_si128((long long)packed));
    _mm_storeu_si128((__m128i *)to, _mm_add_epi16(wide, _mm_set1_epi16((short)(8 * line))));
}

static inline __m256i load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static inline void line_copy(uint8_t *to, const uint8_t *from)
{
    __m256i low = load256(from), high = load256(from + 32);
    _mm256_storeu_si256((__m256i *)to, low);
    _mm256_storeu_si256((__m256i *)(to + 32), high);
}

static inline uint64_t equal_bytes(__m256i a, __m256i b)
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b));
}

static inline uint64_t line_nonzero(const uint8_t *line)
{
    __m256i zero = _mm256_setzero_si256();
    return ~(equal_bytes(load256(line), zero) | equal_bytes(load256(line + 32), zero) << 32);
}

static inline uint64_t line_differing(const uint8_t *a, const uint8_t *b)
{
    return ~(equal_bytes(load256(a), load256(b)) | equal_bytes(load256(a + 32), load256(b + 32)) << 32);
}

static inline uint64_t line_take(const uint8_t *ram, uint8_t *shadow)
{
    __m256i low = load256(ram), high = load256(ram + 32);
    /* Keeps the compiler from loading again: the guest may write meanwhile, and both uses must see the same value. */
    __asm__("" : "+x"(low), "+x"(high));
    uint64_t equal = equal_bytes(low, load256(shadow)) | equal_bytes(high, load256(shadow + 32)) << 32;
    _mm256_storeu_si256((__m256i *)shadow, low);
    _mm256_storeu_si256((__m256i *)(shadow + 32), high);
    return ~equal;
}

static inline uint64_t lines_differing(const uint8_t *a, const uint8_t *b)
{
    uint64_t map = 0;
#pragma GCC unroll 8
    for (unsigned line = 0; line < SP_LINES_PER_PAGE; line++) {
        __m256i low = _mm256_xor_si256(load256(a + line * 64), load256(b + line * 64));
        __m256i high = _mm256_xor_si256(load256(a + line * 64 + 32), load256(b + line * 64 + 32));
        __m256i any = _mm256_or_si256(low, high);
        map |= (uint64_t)!_mm256_testz_si256(any, any) << line;
    }
    return map;
}

static inline uint64_t lines_nonzero(const uint8_t *a)
{
    uint64_t map = 0;
#pragma GCC unroll 8
    for (unsigned line = 0; line < SP_LINES_PER_PAGE; line++) {
        __m256i any = _mm256_or_si256(load256(a + line * 64), load256(a + line * 64 + 32));
        map |= (uint64_t)!_mm256_testz_si256(any, any) << line;
    }
    return map;
}

#include "apply_template.h"
#include "capture_template.h"

const struct sp_kernels sp_kernels_avx2 = {
    .name = "avx2",
    SP_KERNEL_ENTRIES,
};
