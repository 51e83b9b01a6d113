/* See survey_blocks.h. */
#include "survey_blocks.h"

#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

enum { REFERENCE_BYTES = 8 };

/* A newer block takes the place of an older one: what is forgotten is found less. */
struct known {
    uint32_t tag, page;
    uint32_t block; /* + 1; 0: none */
};

struct block_table {
    uint32_t block_bytes;
    uint64_t mask;
    struct known *slots;
};

struct block_table *block_table_new(uint32_t block_bytes, uint64_t memory_bytes)
{
    struct block_table *table = malloc(sizeof *table);
    uint64_t slots = 1024;
    while (slots * 2 * sizeof(struct known) <= memory_bytes)
        slots *= 2;
    if (!table)
        return NULL;
    *table = (struct block_table){block_bytes, slots - 1, calloc(slots, sizeof(struct known))};
    if (table->slots)
        return table;
    free(table);
    return NULL;
}

void block_table_free(struct block_table *table)
{
    if (table)
        free(table->slots);
    free(table);
}

static bool is_zero(const uint8_t *block, uint32_t bytes)
{
    static const uint8_t zeros[1024];
    return memcmp(block, zeros, bytes) == 0;
}

void block_table_add(struct block_table *table, const uint8_t *page, uint32_t number)
{
    for (uint32_t block = 0; block < SP_PAGE_BYTES / table->block_bytes; block++) {
        const uint8_t *at = page + block * table->block_bytes;
        uint64_t hash = XXH3_64bits(at, table->block_bytes);
        if (!is_zero(at, table->block_bytes))
            table->slots[hash & table->mask] = (struct known){(uint32_t)(hash >> 32), number, block + 1};
    }
}

size_t block_table_code(const struct block_table *table, struct sp_packer *packer, const uint8_t *page)
{
    uint8_t rest[SP_PAGE_BYTES], packed[SP_PACK_ROOM];
    struct known last = {0};
    size_t bytes = 0;
    memcpy(rest, page, SP_PAGE_BYTES);
    for (uint32_t block = 0; block < SP_PAGE_BYTES / table->block_bytes; block++) {
        uint8_t *at = rest + block * table->block_bytes;
        uint64_t hash = XXH3_64bits(at, table->block_bytes);
        struct known known = table->slots[hash & table->mask];
        if (is_zero(at, table->block_bytes) || !known.block || known.tag != (uint32_t)(hash >> 32)) {
            last.block = 0;
            continue;
        }
        bytes += last.block && known.page == last.page && known.block == last.block + 1 ? 0 : REFERENCE_BYTES;
        last = known;
        memset(at, 0, table->block_bytes);
    }
    if (bytes == 0)
        return SP_PAGE_BYTES;
    size_t length = sp_pack(packer, rest, packed);
    bytes += length ? length : SP_PAGE_BYTES;
    return bytes < SP_PAGE_BYTES ? bytes : SP_PAGE_BYTES;
}
