/* A restorer from within, for the parts of it that have files of their own: restore.c, restore_writes.c. */
#ifndef SUBPAGE_RESTORE_PARTS_H
#define SUBPAGE_RESTORE_PARTS_H

#include "reduce.h"

struct sp_restorer {
    struct sp_dictionary *dictionary;
    struct sp_unsqueezer *unsqueezer;
    struct sp_vector body;
    /* What is in `body`, while it is unpacked and not yet restored: a stream is unpacked once. */
    bool unpacked;
    unsigned flags;
    uint32_t pages, lengths[SP_COLUMN_COUNT];
};

struct sp_cursor {
    const uint8_t *p, *end;
};

struct sp_source {
    struct sp_cursor columns[SP_COLUMN_COUNT];
    struct sp_dictionary *dictionary;
    const uint8_t *image;
    uint64_t image_pages;
    uint16_t last_code;
    /* Of writes to a disk: shared blocks are noted in `fills`, and not read. */
    struct sp_vector *fills;
    uint64_t last_page; /* that was referred to */
    uint32_t at; /* where the page goes */
};

/* The content of a page on its way: lines that are whole here, and those of which only some bytes are named. */
struct sp_content {
    uint64_t line_map, whole_map;
    uint8_t lines[SP_LINES_PER_PAGE][SP_LINE_BYTES]; /* of the whole ones */
    uint8_t words[SP_LINES_PER_PAGE];                /* of the others */
    const uint8_t *masks, *bytes;                    /* of the others, all together */
    size_t mask_count, byte_count;
};

/* The next bytes of a column, or NULL. */
const uint8_t *sp_cursor_take(struct sp_cursor *column, size_t bytes);

/* Unpacks into the restorer's body exactly `total` bytes, behind which 8 zeros can be read. NULL, or what is wrong. */
const char *sp_restorer_unpack(struct sp_restorer *restorer, unsigned method, const uint8_t *packed, size_t bytes,
                               size_t total);

/* The next lines of a disk, at most a page of them, behind what is in `out`; what is shared with the image is noted and left zero. */
const char *sp_restore_lines(struct sp_source *source, unsigned lines, struct sp_vector *out);

#endif
