/* Unaligned loads and stores, and the variable-length integers (unsigned LEB128) of the delta format. */
#ifndef SUBPAGE_BYTES_H
#define SUBPAGE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the delta format is little endian and this code stores words as they are"
#endif

static inline uint64_t load64(const void *p)
{
    uint64_t value;
    memcpy(&value, p, 8);
    return value;
}

static inline void store64(void *p, uint64_t value)
{
    memcpy(p, &value, 8);
}

static inline uint32_t load32(const void *p)
{
    uint32_t value;
    memcpy(&value, p, 4);
    return value;
}

static inline void store32(void *p, uint32_t value)
{
    memcpy(p, &value, 4);
}

/* Bit i of the result is set when byte i of x is not zero. */
static inline unsigned nonzero_bytes(uint64_t x)
{
    uint64_t high = (x | ((x & 0x7f7f7f7f7f7f7f7fu) + 0x7f7f7f7f7f7f7f7fu)) & 0x8080808080808080u;
    return (unsigned)((high >> 7) * 0x0102040810204080u >> 56);
}

static inline uint8_t *put_uleb(uint8_t *p, uint32_t value)
{
    while (value >= 0x80) {
        *p++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *p++ = (uint8_t)value;
    return p;
}

/* Reads at most to `end`, and at most five bytes. NULL when truncated, longer than needed, or above 32 bits. */
static inline const uint8_t *get_uleb(const uint8_t *p, const uint8_t *end, uint32_t *value)
{
    uint64_t sum = 0;
    for (unsigned shift = 0; p < end && shift < 35; shift += 7) {
        uint8_t byte = *p++;
        sum |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            if (byte == 0 && shift > 0)
                return NULL;
            if (sum > UINT32_MAX)
                return NULL;
            *value = (uint32_t)sum;
            return p;
        }
    }
    return NULL;
}

#endif
