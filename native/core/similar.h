/*
 * Finding pages that resemble each other: HashSimilarityDetector(k, s), c of the Difference Engine (OSDI 2008, 3.2).
 * k x s lines of the page, at places that are random but the same for every page and every host, are hashed in k groups
 * of s; each group's hash is an index under which the page is found again, and c pages are kept per index. One group that
 * agrees makes a candidate; whether a patch against it pays, its length says. Shifted content is not found.
 *
 * Nothing here allocates: the caller gives the memory of the table. Whoever lost its place in the table is not found any
 * more, which costs savings and never correctness.
 */
#ifndef SUBPAGE_SIMILAR_H
#define SUBPAGE_SIMILAR_H

#include "core.h"

enum {
    SP_SKETCH_GROUPS_MAX = 8,
    SP_SKETCH_LINES_MAX = 16, /* k x s */
    SP_SIMILAR_WAYS = 8,      /* entries of a bucket: one cache line */
    SP_SIMILAR_FOUND_MAX = SP_SKETCH_GROUPS_MAX * SP_SIMILAR_WAYS,
};

/* (k, s), c. The paper finds (2, 1), 1 and (4, 1), 1 best. */
struct sp_sketch_shape {
    unsigned groups;     /* k */
    unsigned lines;      /* s */
    unsigned candidates; /* c */
};

bool sp_sketch_shape_valid(const struct sp_sketch_shape *shape);

/* Writes k hashes. 0 stands for a group of nothing but zeros, which resembles everything and is not indexed. */
void sp_sketch(const uint8_t *page, const struct sp_sketch_shape *shape, uint64_t *hashes);

struct sp_similar_entry {
    uint32_t tag; /* upper half of the hash; an entry with id SP_SIMILAR_NONE is empty */
    uint32_t id;
};

#define SP_SIMILAR_NONE UINT32_MAX

/* What is known about whom: hashes to ids of the caller's choice (any below SP_SIMILAR_NONE). */
struct sp_similar {
    struct sp_sketch_shape shape;
    struct sp_similar_entry *entries; /* buckets x SP_SIMILAR_WAYS, the newest of a bucket first */
    uint32_t bucket_mask;
};

/* The memory that a table for about `pages` pages takes; a power of two of buckets. */
size_t sp_similar_bytes(const struct sp_sketch_shape *shape, uint64_t pages);

/* Takes over `bytes` as sp_similar_bytes gave them, 64-byte aligned for speed only. */
void sp_similar_init(struct sp_similar *table, const struct sp_sketch_shape *shape, void *memory, size_t bytes);

/* Distinct ids under any of the k hashes, those of the first group first; at most SP_SIMILAR_FOUND_MAX. */
size_t sp_similar_find(const struct sp_similar *table, const uint64_t *hashes, uint32_t *ids);

void sp_similar_add(struct sp_similar *table, const uint64_t *hashes, uint32_t id);

/* Takes an id out, which was added with these hashes. */
void sp_similar_remove(struct sp_similar *table, const uint64_t *hashes, uint32_t id);

#endif
