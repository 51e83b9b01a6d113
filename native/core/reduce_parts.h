/* A reducer from within, for the parts of it that have files of their own: reduce.c, reduce_writes.c. */
#ifndef SUBPAGE_REDUCE_PARTS_H
#define SUBPAGE_REDUCE_PARTS_H

#include "reduce.h"

#define FOR_LINES(line, map)                                                                                            \
    for (uint64_t rest_ = (map), line = 0; rest_ && (line = (uint64_t)__builtin_ctzll(rest_), true); rest_ &= rest_ - 1)

struct sp_reducer {
    struct sp_reduce_parts parts;
    uint64_t pages;
    bool references;
    uint64_t *epoch; /* a bit per page: sent in this epoch */
    struct sp_known known;
    struct sp_dictionary *dictionary;
    struct sp_squeezer *squeezer;
    struct sp_vector columns[SP_COLUMN_COUNT];
    struct sp_vector body;
    struct sp_vector heads, odd; /* of writes to disks */
};

/* One page of the delta on its way: where each changed line's content is, and how it goes. */
struct sp_page_view {
    uint64_t page;
    uint32_t gap; /* since the page before */
    uint64_t line_map;
    uint64_t literal_map; /* lines that are whole in the record */
    uint64_t run_map, code_map;
    bool raw;
    const uint8_t *content[SP_LINES_PER_PAGE]; /* NULL: not to be had */
    const uint8_t *masks[SP_LINES_PER_PAGE], *bytes[SP_LINES_PER_PAGE];
    uint8_t words[SP_LINES_PER_PAGE], mask_count[SP_LINES_PER_PAGE], byte_count[SP_LINES_PER_PAGE];
    uint16_t codes[SP_LINES_PER_PAGE];
    const uint8_t *memory; /* this page, or NULL */
};

/* One delta, or one frame of writes to a disk, on its way. */
struct sp_pass {
    struct sp_reducer *reducer;
    const uint8_t *memory;
    struct sp_reduce_stats *stats;
    enum sp_refer refer;
    bool of_disk; /* no page of the memory: nothing is learnt for sharing, nothing is found to be similar */
    uint16_t last_code;
    uint64_t last_page; /* that was referred to */
    bool referred; /* to the memory: the plain delta cannot take this one's place any more */
};

/* A page whose lines in `map` are whole, one behind the other at `data`. */
void sp_view_literal(struct sp_page_view *view, uint64_t map, const uint8_t *data);

/* Puts one page into the columns; false without memory. */
bool sp_reduce_page(struct sp_pass *pass, struct sp_page_view *view);

/* Compresses, or copies, `body` behind the header, and says so in it. */
const char *sp_reduced_put_body(struct sp_reducer *reducer, const uint8_t *body, size_t bytes, enum sp_squeeze method,
                                struct sp_vector *out);

#endif
