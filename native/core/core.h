/*
 * The core: capture, apply, hash and compare guest memory. Plain C without Node headers, so that it is tested and fuzzed
 * on its own (test/native, native/fuzz). The byte format of a delta is docs/delta-format.md; the TypeScript oracle in
 * src/delta/oracle must agree with this code byte for byte.
 *
 * Nothing here allocates, and nothing here keeps state except the chosen CPU path.
 */
#ifndef SUBPAGE_CORE_H
#define SUBPAGE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SP_PAGE_BYTES = 4096, SP_LINE_BYTES = 64, SP_LINES_PER_PAGE = 64, SP_WORDS_PER_PAGE = 512 };

enum sp_codec { SP_CODEC_PAGE, SP_CODEC_LINE, SP_CODEC_XOR_RLE, SP_CODEC_MASKED, SP_CODEC_COUNT };

enum {
    SP_DELTA_VERSION = 1,
    SP_DELTA_HEADER_BYTES = 16,
    /* Zeros after the last record, so that a decoder may read 8 bytes from any position inside a record. */
    SP_DELTA_PAD_BYTES = 8,
    SP_ULEB_BYTES_MAX = 5,
    /* A map of 64 lines: which of its bytes are used, and those. */
    SP_LINE_MAP_BYTES_MAX = 9,
    SP_RAW_RECORD_BYTES = 2 + SP_PAGE_BYTES,
    /*
     * The longest record that any decoder accepts. Under `masked`, a line takes its byte of words and at most 64 more:
     * one that would take 64 or more by words goes whole, and a decoder refuses it otherwise.
     */
    SP_RECORD_BYTES_MAX = SP_LINE_MAP_BYTES_MAX + SP_LINES_PER_PAGE * (1 + SP_LINE_BYTES),
    /* Room one page needs while it is encoded: gap, record, and what vector stores may write past its end. */
    SP_STORE_SLACK_BYTES = 64,
    SP_PAGE_RECORD_MAX = 4352,
    SP_DELTA_MIN_CAPACITY = SP_DELTA_HEADER_BYTES + SP_PAGE_RECORD_MAX + SP_DELTA_PAD_BYTES,
};

/* The length of a body has 32 bits in the header. */
#define SP_DELTA_BYTES_MAX ((size_t)UINT32_MAX)

_Static_assert(SP_RAW_RECORD_BYTES <= SP_RECORD_BYTES_MAX, "a raw page is no longer than the longest record");
_Static_assert(SP_ULEB_BYTES_MAX + SP_RECORD_BYTES_MAX + SP_STORE_SLACK_BYTES <= SP_PAGE_RECORD_MAX,
               "a page has room for its gap, its record and the stores past its end");

/* A run of pages: the unit in which dirty pages are named. Matches the pairs of PageRanges in TypeScript. */
struct sp_run {
    uint32_t first;
    uint32_t count;
};

struct sp_capture_stats {
    uint64_t pages;
    uint64_t changed_pages;
    uint64_t changed_lines;
    uint64_t changed_bytes;
};

/* A page of a cache that has no slot. */
#define SP_NO_SLOT UINT32_MAX

/*
 * What is remembered of the memory that the other side holds, in one of three forms.
 *   full    `memory` holds every page at its place
 *   cache   `slot_of` is set: page p is at slot slot_of[p] of `memory`, or nowhere (SP_NO_SLOT)
 *   hashes  `hashed`: `memory` holds SP_BLOCK_HASH_BYTES for each block of each page (hashed.c)
 */
struct sp_shadow {
    uint8_t *memory;
    const uint32_t *slot_of;
    uint64_t slots; /* in `memory` */
    bool hashed;
    uint64_t seed; /* of the hashes */
    unsigned block_lines; /* lines in a block: a power of two, 1 to 64 */
};

enum { SP_BLOCK_HASH_BYTES = 16 };

struct sp_capture {
    /* Set by the caller. */
    const uint8_t *ram;
    struct sp_shadow shadow;
    uint64_t pages; /* in both; runs beyond it are refused */
    const struct sp_run *runs;
    size_t run_count;
    enum sp_codec codec;
    bool whole; /* encode against a zero page and set the shadow, whatever it held; a cache need not hold the page */
    uint8_t *out;
    size_t capacity; /* at least SP_DELTA_MIN_CAPACITY */
    /* NULL, or a byte for each page of `pages`: becomes 1 where a page is not as it was remembered; others are left alone. */
    uint8_t *changed;
    /* Where to begin; afterwards where to go on. `run == run_count` means that nothing is left. */
    size_t run;
    uint32_t offset; /* pages of that run already done */
    /* Results. */
    size_t bytes;
    struct sp_capture_stats stats;
};

/*
 * Fills `out` once with a self-contained delta. False: the runs or the position name a page outside the memory, or one that
 * the cache does not hold and that does not go whole. With hashes, changed blocks go as `line` records.
 */
bool sp_capture_run(struct sp_capture *job);

struct sp_delta_summary {
    enum sp_codec codec;
    bool whole;
    uint32_t pages;
};

/* NULL when the delta is whole and fits an image of that many pages; else what is wrong with it. Writes nothing. */
const char *sp_delta_check(const uint8_t *delta, size_t bytes, uint64_t image_pages, struct sp_delta_summary *summary);

/* The pages of a delta that was checked, as runs; `runs` has room for one for each page. Returns how many those are. */
size_t sp_delta_pages(const uint8_t *delta, size_t bytes, struct sp_run *runs);

/* Checks, then applies. Nothing is written unless the whole delta is well formed. */
const char *sp_delta_apply(uint8_t *image, uint64_t image_pages, const uint8_t *delta, size_t bytes,
                           struct sp_delta_summary *summary);

/* XXH3-128 (canonical, big endian) of every block of the runs, 16 bytes each. False: a run outside the memory. */
bool sp_hash_blocks(const uint8_t *memory, uint64_t pages, const struct sp_run *runs, size_t run_count,
                    size_t block_bytes, uint8_t *out);

/* XXH3-64 of two buffers as if they were one; the second may be empty. */
uint64_t sp_checksum64(const uint8_t *first, size_t first_bytes, const uint8_t *second, size_t second_bytes);

/* The page as it is now, remembered by its hashes; `content` does not change meanwhile. */
void sp_hashed_set(const struct sp_shadow *shadow, uint64_t first_page, const uint8_t *content, uint64_t pages);

/*
 * Index of the first line in which memory and what is remembered of it differ, -1 none. Pages that a cache does not hold
 * are passed over; hashes name the first line of the block. -2: a slot outside the cache.
 */
int64_t sp_shadow_difference(const uint8_t *ram, uint64_t pages, const struct sp_shadow *shadow);

/* Index of the first line that differs within the runs; -1 none, -2 a run outside the memory. */
int64_t sp_compare_lines(const uint8_t *a, const uint8_t *b, uint64_t pages, const struct sp_run *runs, size_t run_count);

/*
 * For recordings: per page of the runs a map of its changed lines (two words, low lines first) and the number of its
 * changed bytes. With `update` the shadow takes the changes. False: a run outside the memory.
 */
bool sp_page_changes(const uint8_t *ram, uint8_t *shadow, uint64_t pages, const struct sp_run *runs, size_t run_count,
                     bool update, uint32_t *maps, uint16_t *byte_counts);

/*
 * XBZRLE as QEMU's migration documents it: old page, new page, at most SP_PAGE_BYTES of output.
 * Returns the bytes written, 0 when equal, -1 when it would not be shorter than the page.
 */
int sp_xbzrle_encode(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out);

/* For benchmarks (reference.c). The pipe returns the bytes of its output, -1 when it is too small or a run is outside. */
bool sp_copy_pages(uint8_t *to, const uint8_t *from, uint64_t pages, const struct sp_run *runs, size_t run_count);
int64_t sp_xbzrle_pipe(uint8_t *cache, const uint8_t *ram, uint64_t pages, const struct sp_run *runs, size_t run_count,
                       uint8_t *out, size_t capacity);

/* CPU paths. The choice is made at first use (SUBPAGE_CPU, else the best the processor has). */
const char *sp_cpu_path(void);
bool sp_cpu_select(const char *name); /* false: no such path in this build or on this processor */

#endif
