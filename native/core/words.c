/*
 * The word codec, in the manner of WKdm: memory is made of 32-bit words that are zero, equal a recent one, or share their
 * upper bits with it. A direct-mapped dictionary of 16 recent words finds them; there are two, for even and odd words,
 * because the halves of 64-bit pointers have little in common.
 *
 *   256 bytes   two bits for each of the 1024 words: 0 zero, 1 exact, 2 partial, 3 miss
 *   misses      4 bytes each
 *   partials    2 bytes each: place in the dictionary << 12 | lower 12 bits
 *   exacts      4 bits each: place in the dictionary, low half of a byte first, an odd last one padded with zero
 *
 * The counts follow from the tags, so the length is known before the first word is read.
 */
#include <string.h>

#include "bytes.h"
#include "pack.h"

enum { WORDS = SP_PAGE_BYTES / 4, TAG_BYTES = WORDS / 4, PLACES = 16, LOW_BITS = 12 };
enum tag { TAG_ZERO, TAG_EXACT, TAG_PARTIAL, TAG_MISS };

/* The upper bits choose the place, so that words which share them meet there. */
static inline unsigned place_of(uint32_t word)
{
    return (word >> LOW_BITS) * 0x9e3779b1u >> 28;
}

size_t sp_words_pack(const uint8_t *page, uint8_t *out)
{
    uint32_t recent[2][PLACES] = {{0}};
    uint32_t misses[WORDS];
    uint16_t partials[WORDS];
    uint8_t exacts[WORDS + 1];
    size_t miss_count = 0, partial_count = 0, exact_count = 0;
    for (unsigned i = 0; i < WORDS; i += 4) {
        unsigned tags = 0;
        for (unsigned j = 0; j < 4; j++) {
            uint32_t word = load32(page + 4 * (i + j));
            if (word == 0)
                continue;
            unsigned place = place_of(word);
            uint32_t *slot = &recent[j & 1][place], before = *slot;
            *slot = word;
            if (before == word) {
                exacts[exact_count++] = (uint8_t)place;
                tags |= TAG_EXACT << (2 * j);
            } else if (before >> LOW_BITS == word >> LOW_BITS) {
                partials[partial_count++] = (uint16_t)(place << LOW_BITS | (word & ((1u << LOW_BITS) - 1)));
                tags |= TAG_PARTIAL << (2 * j);
            } else {
                misses[miss_count++] = word;
                tags |= TAG_MISS << (2 * j);
            }
        }
        out[i / 4] = (uint8_t)tags;
    }
    uint8_t *p = out + TAG_BYTES;
    memcpy(p, misses, 4 * miss_count);
    p += 4 * miss_count;
    memcpy(p, partials, 2 * partial_count);
    p += 2 * partial_count;
    exacts[exact_count] = 0;
    for (size_t i = 0; i < exact_count; i += 2)
        *p++ = (uint8_t)(exacts[i] | exacts[i + 1] << 4);
    return (size_t)(p - out);
}

bool sp_words_unpack(const uint8_t *packed, size_t bytes, uint8_t *page)
{
    if (bytes < TAG_BYTES)
        return false;
    size_t high = 0, low = 0, both = 0;
    for (unsigned i = 0; i < TAG_BYTES; i += 8) {
        uint64_t tags = load64(packed + i), upper = tags >> 1 & 0x5555555555555555u, lower = tags & 0x5555555555555555u;
        high += (unsigned)__builtin_popcountll(upper);
        low += (unsigned)__builtin_popcountll(lower);
        both += (unsigned)__builtin_popcountll(upper & lower);
    }
    size_t miss_bytes = 4 * both, partial_bytes = 2 * (high - both), exact_count = low - both;
    if (bytes != TAG_BYTES + miss_bytes + partial_bytes + (exact_count + 1) / 2)
        return false;
    const uint8_t *miss = packed + TAG_BYTES, *partial = miss + miss_bytes, *exact = partial + partial_bytes;
    /* One page has one packed form: a padding that is not zero is none of ours. */
    if (exact_count % 2 && exact[exact_count / 2] >> 4)
        return false;
    uint32_t recent[2][PLACES] = {{0}};
    size_t exacts = 0;
    for (unsigned i = 0; i < WORDS; i += 4) {
        unsigned tags = packed[i / 4];
        for (unsigned j = 0; j < 4; j++) {
            uint32_t word = 0;
            unsigned place;
            switch (tags >> (2 * j) & 3) {
            case TAG_ZERO:
                break;
            case TAG_EXACT:
                place = exact[exacts / 2] >> (4 * (exacts % 2)) & 15;
                exacts++;
                word = recent[j & 1][place];
                break;
            case TAG_PARTIAL: {
                unsigned two = (unsigned)(partial[0] | partial[1] << 8);
                partial += 2;
                place = two >> LOW_BITS;
                word = (recent[j & 1][place] >> LOW_BITS << LOW_BITS) | (two & ((1u << LOW_BITS) - 1));
                recent[j & 1][place] = word;
                break;
            }
            default:
                word = load32(miss);
                miss += 4;
                recent[j & 1][place_of(word)] = word;
            }
            store32(page + 4 * (i + j), word);
        }
    }
    return true;
}
