/* See known.h. */
#define XXH_STATIC_LINKING_ONLY
#define XXH_INLINE_ALL
#include <stdlib.h>
#include <xxhash.h>

#include "bytes.h"
#include "known.h"

/* Lines of a page, drawn once; fixed, so that equal pages have equal sketches. */
static const unsigned sketch_lines[SP_SKETCH_GROUPS] = {13, 46};

static uint64_t power_of_two(uint64_t least)
{
    uint64_t power = 1024;
    while (power < least)
        power *= 2;
    return power;
}

bool sp_known_open(struct sp_known *known, uint64_t pages, unsigned block_bytes, bool similar)
{
    memset(known, 0, sizeof *known);
    known->block_bytes = block_bytes;
    known->block_shift = (unsigned)__builtin_ctz(block_bytes);
    known->block_slots = power_of_two(pages * (SP_PAGE_BYTES / block_bytes));
    known->sketch_slots = power_of_two(pages);
    known->blocks = calloc(known->block_slots, sizeof *known->blocks);
    bool whole = known->blocks != NULL;
    for (unsigned group = 0; similar && group < SP_SKETCH_GROUPS; group++) {
        known->sketches[group] = calloc(known->sketch_slots, sizeof *known->sketches[group]);
        whole = whole && known->sketches[group];
    }
    if (!whole)
        sp_known_close(known);
    return whole;
}

void sp_known_close(struct sp_known *known)
{
    free(known->blocks);
    known->blocks = NULL;
    for (unsigned group = 0; group < SP_SKETCH_GROUPS; group++) {
        free(known->sketches[group]);
        known->sketches[group] = NULL;
    }
}

size_t sp_known_bytes(const struct sp_known *known)
{
    size_t bytes = known->blocks ? known->block_slots * sizeof *known->blocks : 0;
    for (unsigned group = 0; group < SP_SKETCH_GROUPS; group++)
        if (known->sketches[group])
            bytes += known->sketch_slots * sizeof *known->sketches[group];
    return bytes;
}

int64_t sp_known_block(const struct sp_known *known, const uint8_t *block)
{
    uint64_t hash = XXH3_64bits(block, known->block_bytes);
    uint64_t entry = known->blocks[hash & (known->block_slots - 1)];
    return entry && entry >> 32 == hash >> 32 ? (int64_t)(entry & UINT32_MAX) - 1 : -1;
}

void sp_known_learn_block(struct sp_known *known, const uint8_t *block, uint64_t number)
{
    uint64_t hash = XXH3_64bits(block, known->block_bytes);
    known->blocks[hash & (known->block_slots - 1)] = (hash >> 32 << 32) | (uint32_t)(number + 1);
}

static uint32_t *sketch_slot(const struct sp_known *known, unsigned group, const uint8_t *page)
{
    uint64_t hash = XXH3_64bits(page + sketch_lines[group] * SP_LINE_BYTES, SP_LINE_BYTES);
    return &known->sketches[group][hash & (known->sketch_slots - 1)];
}

unsigned sp_known_similar(const struct sp_known *known, const uint8_t *page, uint32_t *pages)
{
    unsigned found = 0;
    for (unsigned group = 0; group < SP_SKETCH_GROUPS && known->sketches[group]; group++) {
        uint32_t entry = *sketch_slot(known, group, page);
        if (entry && !(found && pages[0] == entry - 1))
            pages[found++] = entry - 1;
    }
    return found;
}

void sp_known_learn_sketch(struct sp_known *known, const uint8_t *page, uint32_t number)
{
    for (unsigned group = 0; group < SP_SKETCH_GROUPS && known->sketches[group]; group++)
        *sketch_slot(known, group, page) = number + 1;
}
