/*
 * Reduce: a delta in fewer bytes, by what the other side knows already. Lines it was sent lately (dictionary.h), blocks that
 * its memory holds elsewhere (sharing, after FGBI), pages that resemble others (after the Difference Engine); then one
 * compression pass over the columns of what is left. The bytes are docs/reduced-format.md.
 *
 * Reducer and restorer live as long as a connection and see the same deltas in the same order. The restorer gives back a
 * delta that, applied, has the effect of the one that was reduced; it need not have the same bytes.
 *
 * `memory` is the sender's shadow: what the receiver will hold once it has applied everything sent so far. Only pages outside
 * of the epoch are referred to: those are in the receiver's image as they are in the shadow, whenever they are looked up.
 */
#ifndef SUBPAGE_REDUCE_H
#define SUBPAGE_REDUCE_H

#include "bytes.h"
#include "dictionary.h"
#include "known.h"
#include "squeeze.h"

enum { SP_REDUCED_VERSION = 1, SP_REDUCED_BODY_BYTES_MAX = 8 << 20 };

/* Columns of the body, in this order. Like goes to like, so that the compressor finds it. */
enum sp_column {
    SP_COLUMN_PAGES, /* gaps, kinds, references to pages and blocks */
    SP_COLUMN_MAPS,  /* maps of changed, of known and of consecutive lines */
    SP_COLUMN_WORDS, /* a byte per changed line: its changed words */
    SP_COLUMN_MASKS, /* a byte per changed word: its changed bytes */
    SP_COLUMN_BYTES, /* the changed bytes of changed words */
    SP_COLUMN_LINES, /* whole lines */
    SP_COLUMN_CODES, /* of known lines, 16 bits each */
    SP_COLUMN_COUNT,
};

/* How a page goes; the lowest three bits of its kind byte. */
enum { SP_PAGE_ZERO = 0, SP_PAGE_RAW = 1, SP_PAGE_MAP = 2, SP_PAGE_SIMILAR = 3 };
/* Added to RAW and MAP. */
enum { SP_PAGE_HAS_CODES = 8, SP_PAGE_HAS_RUNS = 16 };

/* Fourth byte of the header: whole, how it was compressed, and whether it is a plain delta that was only compressed. */
enum { SP_REDUCED_WHOLE = 1, SP_REDUCED_METHOD_SHIFT = 1, SP_REDUCED_METHOD_MASK = 3, SP_REDUCED_PLAIN = 8 };

struct sp_reduce_parts {
    bool dictionary;
    bool sharing;
    bool similar;
    unsigned block_bytes; /* of sharing */
};

struct sp_reduce_stats {
    uint64_t lines;            /* changed lines looked at */
    uint64_t dictionary_lines; /* of which known by the dictionary */
    uint64_t shared_lines;     /* of which elsewhere in the image */
    uint64_t similar_pages;
    uint64_t body_bytes;       /* before compression */
};

/* A number behind what the vector holds, into room that was reserved for its longest form. */
static inline void sp_vector_append_uleb(struct sp_vector *vector, uint32_t value)
{
    SP_INVARIANT(vector->bytes <= vector->capacity);
    SP_INVARIANT(vector->capacity - vector->bytes >= SP_ULEB_BYTES_MAX);
    vector->bytes = (size_t)(put_uleb(vector->data + vector->bytes, value) - vector->data);
}

/*
 * What may be referred to. BEFORE: pages outside of the epoch, which are the same in the receiver's last checkpoint and in the
 * next one; AFTER: any page, as the receiver has it when the epoch is applied.
 */
enum sp_refer { SP_REFER_NONE, SP_REFER_BEFORE, SP_REFER_AFTER };

struct sp_reducer;
/* NULL without memory. @param pages of the guest */
struct sp_reducer *sp_reducer_new(uint64_t pages, const struct sp_reduce_parts *parts);
void sp_reducer_free(struct sp_reducer *reducer);
uint64_t sp_reducer_pages(const struct sp_reducer *reducer);
size_t sp_reducer_bytes(const struct sp_reducer *reducer);
uint64_t sp_reducer_digest(const struct sp_reducer *reducer);

/* A new epoch: no page is part of it. `references` false: nothing of the memory is referred to in it (seeding). */
void sp_reducer_begin(struct sp_reducer *reducer, bool references);
/* These pages are sent in this epoch, now or later. False: a run outside the memory. */
bool sp_reducer_include(struct sp_reducer *reducer, const struct sp_run *runs, size_t run_count);

/* Pages of an epoch that is not reduced: they are found later all the same. The runs are those of an `include`. */
void sp_reducer_know(struct sp_reducer *reducer, const struct sp_run *runs, size_t run_count, const uint8_t *memory);

/*
 * Reduces one delta into `out`, which it replaces. When nothing is gained `out` is empty: send the delta as it is, the
 * restorer then learns from it. `memory` may be NULL: then only lines that are whole in the delta are looked up.
 * @return NULL, or what is wrong; the reducer must then not be used again
 */
const char *sp_reduce(struct sp_reducer *reducer, const uint8_t *delta, size_t bytes, const uint8_t *memory,
                      enum sp_squeeze method, struct sp_vector *out, struct sp_reduce_stats *stats);

struct sp_writes_stats {
    struct sp_reduce_stats content; /* of pieces that are not zero */
    uint64_t zero_bytes;            /* pieces, and records without data */
    uint64_t odd_bytes;             /* that fill no whole line */
};

/*
 * Records of writes to a disk (../disk/records.h), reduced by the same means as deltas and in one order with them; out is never
 * empty. Their blocks are looked for in `memory`, which stands still meanwhile.
 * @return NULL, or what is wrong; the reducer must then not be used again
 */
const char *sp_reduce_writes(struct sp_reducer *reducer, const uint8_t *records, size_t bytes, const uint8_t *memory,
                             enum sp_refer refer, enum sp_squeeze method, struct sp_vector *out,
                             struct sp_writes_stats *stats);

struct sp_restorer;
struct sp_restorer *sp_restorer_new(void);
void sp_restorer_free(struct sp_restorer *restorer);
uint64_t sp_restorer_digest(const struct sp_restorer *restorer);

/*
 * The pages of the image that a reduced delta refers to, 32 bits each, in the order in which it does, some of them again and
 * again; they replace `out`. For an image that is not all there: the next call must be sp_restore, of the same bytes.
 * @return NULL, or what is wrong; the restorer must then not be used again
 */
const char *sp_restore_references(struct sp_restorer *restorer, const uint8_t *reduced, size_t bytes,
                                  uint64_t image_pages, size_t bytes_max, struct sp_vector *out);

/*
 * Restores a delta into `out`, which it replaces. Reads the image, writes only `out` and what is learnt. The delta is not
 * checked: sp_delta_check does that.
 * @param bytes_max refuses what would become longer
 * @return NULL, or what is wrong; the restorer must then not be used again
 */
const char *sp_restore(struct sp_restorer *restorer, const uint8_t *reduced, size_t bytes, const uint8_t *image,
                       uint64_t image_pages, size_t bytes_max, struct sp_vector *out);

/* A piece of restored records that is to be filled with lines of the image. */
struct sp_fill {
    uint32_t to; /* offset in the records */
    uint32_t page;
    uint16_t line, lines; /* within the page */
};

/*
 * Restores records into `out`, which it replaces, but for the pieces in `fills` (struct sp_fill, one behind the other; it
 * replaces them), which are zero. `after`: these are to be filled once the epoch is applied, else before that. Each lies within
 * the image and within the data of a record. The records are not checked further: records_check does that.
 * @param bytes_max refuses what would become longer
 * @return NULL, or what is wrong; the restorer must then not be used again
 */
const char *sp_restore_writes(struct sp_restorer *restorer, const uint8_t *reduced, size_t bytes, uint64_t image_pages,
                              size_t bytes_max, struct sp_vector *out, struct sp_vector *fills, bool *after);

/* False, and nothing is filled, unless each lies within the image and the records. */
bool sp_fill_writes(uint8_t *records, size_t bytes, const struct sp_fill *fills, size_t count, const uint8_t *image,
                    uint64_t image_pages);

/* Learns from a delta that was sent as it is; one that was checked. */
void sp_restorer_learn(struct sp_restorer *restorer, const uint8_t *delta, size_t bytes);

/* Both sides: the whole lines of a delta, in order. */
void sp_dictionary_learn_delta(struct sp_dictionary *dictionary, const uint8_t *delta, size_t bytes);

#endif
