/* See similar.h. */
#include "similar.h"

#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "bytes.h"

/*
 * Where the lines of a sketch lie: drawn once from a uniform permutation of the 64 lines and fixed since, for what one
 * host or one run knows of a page must mean the same to another.
 */
static const uint8_t places[SP_SKETCH_LINES_MAX] = {24, 9, 52, 4, 31, 19, 46, 3, 50, 30, 33, 63, 27, 38, 18, 15};

bool sp_sketch_shape_valid(const struct sp_sketch_shape *shape)
{
    return shape->groups >= 1 && shape->groups <= SP_SKETCH_GROUPS_MAX && shape->lines >= 1 &&
           shape->groups * shape->lines <= SP_SKETCH_LINES_MAX && shape->candidates >= 1 &&
           shape->candidates <= SP_SIMILAR_WAYS;
}

static bool line_is_zero(const uint8_t *line)
{
    uint64_t any = 0;
    for (unsigned i = 0; i < SP_LINE_BYTES; i += 8)
        any |= load64(line + i);
    return any == 0;
}

void sp_sketch(const uint8_t *page, const struct sp_sketch_shape *shape, uint64_t *hashes)
{
    const uint8_t *place = places;
    for (unsigned group = 0; group < shape->groups; group++) {
        uint64_t hash = group + 1;
        bool zero = true;
        for (unsigned i = 0; i < shape->lines; i++) {
            const uint8_t *line = page + (size_t)*place++ * SP_LINE_BYTES;
            zero = zero && line_is_zero(line);
            hash = XXH3_64bits_withSeed(line, SP_LINE_BYTES, hash);
        }
        hashes[group] = zero ? 0 : hash ? hash : 1;
    }
}

size_t sp_similar_bytes(const struct sp_sketch_shape *shape, uint64_t pages)
{
    /* Two thirds full: buckets of eight then overflow rarely. */
    uint64_t buckets = 1, wanted = (pages * shape->groups * 3 / 2 + SP_SIMILAR_WAYS - 1) / SP_SIMILAR_WAYS;
    while (buckets < wanted && buckets < (UINT64_C(1) << 31))
        buckets *= 2;
    return (size_t)buckets * SP_SIMILAR_WAYS * sizeof(struct sp_similar_entry);
}

void sp_similar_init(struct sp_similar *table, const struct sp_sketch_shape *shape, void *memory, size_t bytes)
{
    table->shape = *shape;
    table->entries = memory;
    table->bucket_mask = (uint32_t)(bytes / (SP_SIMILAR_WAYS * sizeof(struct sp_similar_entry)) - 1);
    memset(memory, 0xff, bytes);
}

static struct sp_similar_entry *bucket_of(const struct sp_similar *table, uint64_t hash)
{
    return table->entries + (size_t)((uint32_t)hash & table->bucket_mask) * SP_SIMILAR_WAYS;
}

static uint32_t tag_of(uint64_t hash)
{
    return (uint32_t)(hash >> 32);
}

static size_t add_distinct(uint32_t *ids, size_t count, uint32_t id)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] == id)
            return count;
    ids[count] = id;
    return count + 1;
}

size_t sp_similar_find(const struct sp_similar *table, const uint64_t *hashes, uint32_t *ids)
{
    size_t count = 0;
    for (unsigned group = 0; group < table->shape.groups; group++) {
        if (hashes[group] == 0)
            continue;
        const struct sp_similar_entry *bucket = bucket_of(table, hashes[group]);
        uint32_t tag = tag_of(hashes[group]);
        for (unsigned way = 0; way < SP_SIMILAR_WAYS; way++)
            if (bucket[way].id != SP_SIMILAR_NONE && bucket[way].tag == tag)
                count = add_distinct(ids, count, bucket[way].id);
    }
    return count;
}

/* The way that a new entry of this tag takes the place of: the oldest of its tag when there are c, else a free or the oldest. */
static unsigned way_to_lose(const struct sp_similar_entry *bucket, uint32_t tag, uint32_t id, unsigned candidates)
{
    unsigned same = 0, lose = SP_SIMILAR_WAYS - 1;
    bool free_seen = false;
    for (unsigned way = 0; way < SP_SIMILAR_WAYS; way++) {
        if (bucket[way].id == SP_SIMILAR_NONE) {
            lose = free_seen ? lose : way;
            free_seen = true;
        } else if (bucket[way].tag == tag) {
            if (bucket[way].id == id || ++same == candidates)
                return way;
        }
    }
    return lose;
}

void sp_similar_add(struct sp_similar *table, const uint64_t *hashes, uint32_t id)
{
    for (unsigned group = 0; group < table->shape.groups; group++) {
        if (hashes[group] == 0)
            continue;
        struct sp_similar_entry *bucket = bucket_of(table, hashes[group]);
        unsigned lose = way_to_lose(bucket, tag_of(hashes[group]), id, table->shape.candidates);
        memmove(bucket + 1, bucket, lose * sizeof *bucket);
        bucket[0] = (struct sp_similar_entry){tag_of(hashes[group]), id};
    }
}

void sp_similar_remove(struct sp_similar *table, const uint64_t *hashes, uint32_t id)
{
    for (unsigned group = 0; group < table->shape.groups; group++) {
        if (hashes[group] == 0)
            continue;
        struct sp_similar_entry *bucket = bucket_of(table, hashes[group]);
        for (unsigned way = 0; way < SP_SIMILAR_WAYS; way++)
            if (bucket[way].id == id && bucket[way].tag == tag_of(hashes[group]))
                bucket[way] = (struct sp_similar_entry){0, SP_SIMILAR_NONE};
    }
}
