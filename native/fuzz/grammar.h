/*
 * What structure-aware targets share: the input is a list of choices, from which a valid form is built and then bent. An
 * input that ends gives zeros, so that every prefix of an input is one, too; a few bytes make a body of real size.
 */
#ifndef SUBPAGE_FUZZ_GRAMMAR_H
#define SUBPAGE_FUZZ_GRAMMAR_H

#include <stdlib.h>
#include <string.h>

#include "../core/reduce.h"

struct choices {
    const uint8_t *p, *end;
    uint32_t noise; /* for contents that nobody chooses */
};

static inline unsigned choose(struct choices *choices, unsigned below)
{
    unsigned value = choices->p < choices->end ? *choices->p++ : 0;
    if (below > 256)
        value |= (choices->p < choices->end ? *choices->p++ : 0u) << 8;
    return below > 0 ? value % below : 0;
}

/* True for one value of a byte in sixteen, and never when the input has ended. */
static inline bool seldom(struct choices *choices)
{
    return choose(choices, 256) % 16 == 15;
}

static inline uint8_t noise(struct choices *choices)
{
    choices->noise = choices->noise * 1664525u + 1013904223u;
    return (uint8_t)(choices->noise >> 24);
}

/* A map of up to 64 lines, not empty: few, a stretch, all but a few, or all. */
static inline uint64_t choose_map(struct choices *choices)
{
    unsigned kind = choose(choices, 8), at = choose(choices, 64), count = choose(choices, 64) + 1;
    uint64_t stretch = (count == 64 ? ~0ull : (1ull << count) - 1) << at;
    uint64_t some = 0;
    for (unsigned i = 0; i < 64; i++)
        some |= (uint64_t)(noise(choices) & 1) << i;
    switch (kind) {
    case 0: return 1ull << at;
    case 1: return stretch | 1;
    case 2: return ~(1ull << at);
    case 3: return some | 1ull << at;
    case 4: return some & stretch ? some & stretch : 1;
    default: return ~0ull;
    }
}

/* Masks of the changed words of a line, and how many bytes they name. Seldom one that names none, or a line that costs 64. */
static inline unsigned choose_masks(struct choices *choices, unsigned words, uint8_t *masks, unsigned *bytes)
{
    unsigned count = (unsigned)__builtin_popcount(words), kind = choose(choices, 4);
    *bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        uint8_t mask = kind == 0 ? 1 : kind == 1 ? (uint8_t)(noise(choices) | 1) : kind == 2 ? 0x7e : 0xff;
        /* Eight whole words cost 72 bytes: 55 of the bytes may be named. */
        if (count == 8 && kind >= 2 && i % 4 == 3)
            mask = 0x0f;
        masks[i] = mask;
    }
    if (count > 0 && seldom(choices))
        masks[choose(choices, count)] = (uint8_t)choose(choices, 256);
    if (seldom(choices))
        memset(masks, 0xff, count);
    for (unsigned i = 0; i < count; i++)
        *bytes += (unsigned)__builtin_popcount(masks[i]);
    return count;
}

static inline unsigned choose_words(struct choices *choices)
{
    unsigned kind = choose(choices, 4);
    return kind == 0 ? 0 : kind == 1 ? 1u << choose(choices, 8) : kind == 2 ? 0xff : noise(choices);
}

static inline void must(bool holds)
{
    if (!holds)
        abort();
}

static inline void add(struct sp_vector *to, unsigned byte)
{
    must(sp_vector_reserve(to, 1));
    sp_vector_append_byte(to, byte & 0xff);
}

static inline void add_uleb(struct sp_vector *to, uint32_t value)
{
    must(sp_vector_reserve(to, SP_ULEB_BYTES_MAX));
    sp_vector_append_uleb(to, value);
}

static inline void add_map(struct sp_vector *to, uint64_t map)
{
    unsigned top = nonzero_bytes(map);
    add(to, top);
    for (; top; top &= top - 1)
        add(to, map >> (8 * __builtin_ctz(top)) & 0xff);
}

static inline void add_noise(struct choices *choices, struct sp_vector *to, size_t bytes)
{
    bool filled = choose(choices, 2);
    uint8_t fill = (uint8_t)choose(choices, 256);
    must(sp_vector_reserve(to, bytes));
    for (size_t i = 0; i < bytes; i++)
        to->data[to->bytes++] = filled ? fill : noise(choices);
}

/* Bends what was built: a byte changed, some left out, some put in. Where, is drawn over all of it. */
static inline void bend(struct choices *choices, struct sp_vector *form)
{
    for (unsigned bends = seldom(choices) ? choose(choices, 4) + 1 : 0; bends > 0 && form->bytes > 0; bends--) {
        size_t at = ((size_t)choose(choices, 65536) << 8 | choose(choices, 256)) % form->bytes, left = form->bytes - at;
        size_t count = (size_t)choose(choices, 16) + 1;
        switch (choose(choices, 4)) {
        case 0:
            form->data[at] ^= (uint8_t)(1u << choose(choices, 8));
            break;
        case 1:
            form->data[at] = (uint8_t)choose(choices, 256);
            break;
        case 2:
            count = count < left ? count : left;
            memmove(form->data + at, form->data + at + count, left - count);
            form->bytes -= count;
            break;
        default:
            must(sp_vector_reserve(form, count));
            memmove(form->data + at + count, form->data + at, left);
            form->bytes += count;
        }
    }
}

/* A copy that ends where its allocation ends, so that AddressSanitizer sees what reaches beyond. */
static inline uint8_t *exact_copy(const void *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    must(copy != NULL);
    if (bytes > 0)
        memcpy(copy, data, bytes);
    return copy;
}

#endif
