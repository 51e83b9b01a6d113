/*
 * What differs between CPU paths: a table of functions that work on one page. Each path is one file that defines the
 * primitives and includes the shared templates; the tables must produce identical bytes.
 */
#ifndef SUBPAGE_KERNELS_H
#define SUBPAGE_KERNELS_H

#include "core.h"

/*
 * Encodes one page into `out` (SP_PAGE_RECORD_MAX bytes of room), updates the shadow and adds to the stats.
 * Returns the length of the record without its gap; 0 means that nothing has to be sent for this page.
 */
typedef size_t sp_capture_page(const uint8_t *ram, uint8_t *shadow, uint8_t *out, struct sp_capture_stats *stats);

/* The parts of one page record of the `masked` codec, found by sp_parse_masked. */
struct sp_masked_parts {
    uint64_t line_map;
    const uint8_t *words; /* one byte per changed line */
    const uint8_t *masks; /* one byte per changed word */
    size_t word_count;
    const uint8_t *lines; /* 64 bytes per changed line whose word byte is 0 */
    const uint8_t *data;  /* packed bytes of the changed words */
};

typedef void sp_apply_masked(uint8_t *page, const struct sp_masked_parts *parts);
typedef void sp_apply_lines(uint8_t *page, uint64_t line_map, const uint8_t *data);

struct sp_kernels {
    const char *name;
    sp_capture_page *capture[SP_CODEC_COUNT][2]; /* [codec][whole] */
    /* As capture of `line`, but a block of `block_lines` goes whole when one of its lines has changed. */
    size_t (*capture_blocks)(const uint8_t *ram, uint8_t *shadow, unsigned block_lines, uint8_t *out,
                             struct sp_capture_stats *stats);
    /* A `line` record of these lines of a page that nobody writes; zero and raw pages in their own forms. */
    size_t (*encode_lines)(const uint8_t *page, uint64_t line_map, uint8_t *out);
    sp_apply_masked *apply_masked;
    sp_apply_lines *apply_lines;
    int (*xbzrle_encode)(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out);
    uint64_t (*changed_lines)(const uint8_t *a, const uint8_t *b);
    unsigned (*changes)(const uint8_t *ram, uint8_t *shadow, bool update, uint64_t *line_map); /* -> changed bytes */
};

/* Hashes as a shadow (hashed.c), made ready for many pages. */
struct sp_hashed {
    uint8_t *hashes;
    unsigned block_lines;
    uint64_t seed;
    uint64_t zero[2]; /* hash of a block of zeros */
    uint8_t secret[192];
};

void sp_hashed_open(struct sp_hashed *hashed, const struct sp_shadow *shadow);
/* Remembers a page that nobody writes. Returns the map of lines in the blocks whose hashes were others. */
uint64_t sp_hashed_take(const struct sp_hashed *hashed, uint64_t page, const uint8_t *content);

extern const struct sp_kernels sp_kernels_scalar;
#if defined(__x86_64__)
extern const struct sp_kernels sp_kernels_avx2;
#endif

const struct sp_kernels *sp_kernels_chosen(void);

#endif
