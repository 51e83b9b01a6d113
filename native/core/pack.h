/*
 * One page at rest, made smaller: lz4, zstd level 1 and a word codec of our own in the manner of WKdm (Wilson, Kaplan:
 * "The Case for Compressed Caching in Virtual Memory Systems", 1999). The first byte says which; the best for the page
 * is chosen. And a page as a patch of another one, in the `masked` record form of docs/delta-format.md.
 *
 * Every reader checks: whatever bytes it is given, it writes one page or refuses, and reads nothing beyond them (patches:
 * beyond them and SP_DELTA_PAD_BYTES).
 */
#ifndef SUBPAGE_PACK_H
#define SUBPAGE_PACK_H

#include "core.h"

enum sp_packing { SP_PACKING_WORDS, SP_PACKING_LZ4, SP_PACKING_ZSTD, SP_PACKING_COUNT };

enum {
    /* Room that sp_pack needs, whatever comes of it; what is kept is at most SP_PACKED_BYTES_MAX. */
    SP_PACK_ROOM = 4608,
    /* A packed page that is longer saves too little for the time that reading it takes. */
    SP_PACKED_BYTES_MAX = 3072,
    /* The paper: a patch must be below half a page. */
    SP_PATCH_BYTES_MAX = 2047,
};

/* Compression contexts, which are dear to make: one per thread. */
struct sp_packer;
struct sp_packer *sp_packer_new(void); /* NULL without memory */
void sp_packer_free(struct sp_packer *packer);

/* Returns the length, first byte included; 0 when the page does not pack into SP_PACKED_BYTES_MAX. */
size_t sp_pack(struct sp_packer *packer, const uint8_t *page, uint8_t *out);

/* By one packing alone, whatever its length up to SP_PACK_ROOM; 0 when it fails. For measurements and tests. */
size_t sp_pack_as(struct sp_packer *packer, enum sp_packing packing, const uint8_t *page, uint8_t *out);

bool sp_unpack(struct sp_packer *packer, const uint8_t *packed, size_t bytes, uint8_t *page);

/* The word codec without its first byte; out has SP_PACK_ROOM. */
size_t sp_words_pack(const uint8_t *page, uint8_t *out);
bool sp_words_unpack(const uint8_t *packed, size_t bytes, uint8_t *page);

/*
 * What turns `reference` into `page`; at most SP_PATCH_BYTES_MAX, else 0 is returned. Equal pages also give 0: whoever
 * asks has compared them. `out` has SP_PAGE_RECORD_MAX.
 */
size_t sp_patch_make(const uint8_t *page, const uint8_t *reference, uint8_t *out);

/* `page` holds the reference and becomes the patched page; false (and maybe changed) when the patch is malformed. */
bool sp_patch_apply(uint8_t *page, const uint8_t *patch, size_t bytes);

#endif
