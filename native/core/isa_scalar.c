/* The portable path: 64-bit words, no vector instructions. */
#include "bytes.h"
#include "kernels.h"

static inline uint64_t spread_bits(unsigned byte)
{
    uint64_t spread = (byte * 0x0101010101010101u) & 0x8040201008040201u;
    /* Byte i holds bit i or nothing: fill it. */
    uint64_t high = (spread + 0x7f7f7f7f7f7f7f7fu) | spread;
    return ((high >> 7) & 0x0101010101010101u) * 0xff;
}

/* Both take masks made of whole bytes only, which is all that the templates use. */
static inline uint64_t gather_bits(uint64_t x, uint64_t mask)
{
    uint64_t packed = 0;
    unsigned at = 0;
    for (unsigned byte = 0; byte < 8; byte++) {
        if (mask >> (8 * byte) & 1) {
            packed |= (x >> (8 * byte) & 0xff) << at;
            at += 8;
        }
    }
    return packed;
}

static inline uint64_t scatter_bits(uint64_t x, uint64_t mask)
{
    uint64_t spread = 0;
    for (unsigned byte = 0; byte < 8; byte++) {
        if (mask >> (8 * byte) & 1) {
            spread |= (x & 0xff) << (8 * byte);
            x >>= 8;
        }
    }
    return spread;
}

static inline void put_word_indexes(uint16_t *to, unsigned words, unsigned line)
{
    for (; words; words &= words - 1)
        *to++ = (uint16_t)(8 * line + (unsigned)__builtin_ctz(words));
}

static inline void line_copy(uint8_t *to, const uint8_t *from)
{
    for (unsigned word = 0; word < 8; word++)
        store64(to + 8 * word, load64(from + 8 * word));
}

static inline uint64_t line_nonzero(const uint8_t *line)
{
    uint64_t map = 0;
    for (unsigned word = 0; word < 8; word++)
        map |= (uint64_t)nonzero_bytes(load64(line + 8 * word)) << (8 * word);
    return map;
}

static inline uint64_t line_differing(const uint8_t *a, const uint8_t *b)
{
    uint64_t map = 0;
    for (unsigned word = 0; word < 8; word++)
        map |= (uint64_t)nonzero_bytes(load64(a + 8 * word) ^ load64(b + 8 * word)) << (8 * word);
    return map;
}

static inline uint64_t line_take(const uint8_t *ram, uint8_t *shadow)
{
    uint64_t map = 0;
    for (unsigned word = 0; word < 8; word++) {
        /* One load: the guest may write meanwhile, and both uses must see the same value. */
        uint64_t now = *(const volatile uint64_t *)(ram + 8 * word);
        map |= (uint64_t)nonzero_bytes(now ^ load64(shadow + 8 * word)) << (8 * word);
        store64(shadow + 8 * word, now);
    }
    return map;
}

static inline uint64_t lines_differing(const uint8_t *a, const uint8_t *b)
{
    uint64_t map = 0;
    for (unsigned line = 0; line < SP_LINES_PER_PAGE; line++) {
        uint64_t difference = 0;
        for (unsigned word = 0; word < 8; word++)
            difference |= load64(a + line * 64 + 8 * word) ^ load64(b + line * 64 + 8 * word);
        map |= (uint64_t)(difference != 0) << line;
    }
    return map;
}

static inline uint64_t lines_nonzero(const uint8_t *a)
{
    uint64_t map = 0;
    for (unsigned line = 0; line < SP_LINES_PER_PAGE; line++) {
        uint64_t any = 0;
        for (unsigned word = 0; word < 8; word++)
            any |= load64(a + line * 64 + 8 * word);
        map |= (uint64_t)(any != 0) << line;
    }
    return map;
}

#include "apply_template.h"
#include "capture_template.h"

const struct sp_kernels sp_kernels_scalar = {
    .name = "scalar",
    SP_KERNEL_ENTRIES,
};
