/*
 * What density could save on given memories, without changing anything: Table 1 of the Difference Engine (OSDI 2008) for
 * the user's own. In its order: pages of one repeated word, identical pages, pages that a patch of another one describes,
 * pages that pack; and below the page, blocks that repeat.
 *
 * Memory is bounded: identical pages, and similar ones, are found in as many passes as it takes, each for a part of the
 * hashes; repeating blocks are counted on a sample by hash, which is unbiased. Reads with pread, because a mapping would fill the holes of a guest's RAM file.
 */
#ifndef SUBPAGE_SURVEY_H
#define SUBPAGE_SURVEY_H

#include "pack.h"
#include "similar.h"

enum { SP_SURVEY_BLOCK_SIZES = 3 };
extern const uint32_t sp_survey_block_bytes[SP_SURVEY_BLOCK_SIZES];

/* A piece of memory in an open file, or in `memory` of the survey. */
struct sp_extent {
    int fd;         /* negative: in `memory` */
    uint32_t image; /* which of the images it belongs to */
    uint64_t offset, pages;
    uint64_t first_page; /* set by sp_survey_run: pages of the extents before it */
};

struct sp_survey_counts {
    uint64_t pages;
    uint64_t zero;    /* all bytes zero, holes of the file among them */
    uint64_t filled;  /* one 64-bit word again and again, not zero */
    uint64_t shared;  /* identical to a page met before */
    uint64_t patched; /* a patch below half a page describes it */
    uint64_t packed;
    uint64_t patch_bytes, packed_bytes;
};

struct sp_survey_blocks {
    uint64_t blocks;  /* of unique pages */
    uint64_t zero;
    uint64_t sampled, distinct; /* of the others, those the sample holds */
    /* Bytes of a part of the pages that are neither filled, shared nor patched: packed; with blocks as references besides,
     * to any page before them or only to pages that stay whole, as the store has them at hand (survey_blocks.h). */
    uint64_t packed_bytes, with_any_bytes, with_whole_bytes;
};

struct sp_survey {
    /* Set by the caller. */
    struct sp_extent *extents;
    size_t extent_count;
    const uint8_t *memory; /* pages that no file has in one piece */
    size_t memory_size;
    struct sp_survey_counts *images; /* one for each image, zeroed */
    uint32_t image_count;
    struct sp_sketch_shape shape;
    bool patch, pack;
    uint64_t memory_bytes; /* for the tables */
    /* Results. */
    struct sp_survey_blocks blocks[SP_SURVEY_BLOCK_SIZES];
    uint64_t references; /* pages that patches need */
    uint64_t packings[SP_PACKING_COUNT];
    uint32_t passes, patch_passes;
    uint64_t share_ns, patch_ns, pack_ns;
};

/* 0, or an errno: ENOMEM, or that of a read. EFBIG: more pages than it can name, or than 64 passes within its memory find. */
int sp_survey_run(struct sp_survey *survey);

/* Whether the page is one 64-bit word 512 times. */
bool sp_page_is_filled(const uint8_t *page);

#endif
