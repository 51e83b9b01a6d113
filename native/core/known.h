/*
 * What the other side's memory holds already, as hints: an index of aligned blocks by the hash of their content, and one of
 * pages by a sketch (Difference Engine, OSDI 2008: hashes of 64-byte blocks at fixed, random offsets; pages that share one
 * probably resemble each other). An entry may be out of date, so whoever follows it compares.
 */
#ifndef SUBPAGE_KNOWN_H
#define SUBPAGE_KNOWN_H

#include "core.h"

enum { SP_SKETCH_GROUPS = 2 };

struct sp_known {
    unsigned block_bytes;  /* 64 to 4096, a power of two */
    unsigned block_shift;
    uint64_t block_slots;  /* powers of two */
    uint64_t sketch_slots;
    uint64_t *blocks;      /* 32 bits of the hash, then the number of the block + 1 */
    uint32_t *sketches[SP_SKETCH_GROUPS]; /* page + 1 */
};

/* Memory for that many pages; false without. `similar` also makes the sketches. */
bool sp_known_open(struct sp_known *known, uint64_t pages, unsigned block_bytes, bool similar);
void sp_known_close(struct sp_known *known);
size_t sp_known_bytes(const struct sp_known *known);

/* The number of a block that once had this content, or -1. */
int64_t sp_known_block(const struct sp_known *known, const uint8_t *block);
void sp_known_learn_block(struct sp_known *known, const uint8_t *block, uint64_t number);

/* Pages that may resemble this one; returns how many were found. */
unsigned sp_known_similar(const struct sp_known *known, const uint8_t *page, uint32_t *pages);
void sp_known_learn_sketch(struct sp_known *known, const uint8_t *page, uint32_t number);

#endif
