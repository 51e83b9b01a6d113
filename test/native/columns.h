/* Reduced deltas made by hand, column by column: what a hostile sender can put together. */
#ifndef COLUMNS_H
#define COLUMNS_H

#include "../../native/core/reduce.h"
#include "check.h"

struct columns {
    struct sp_vector column[SP_COLUMN_COUNT];
    uint32_t pages;
};

static inline void column_put(struct columns *made, enum sp_column column, const void *bytes, size_t count)
{
    CHECK(sp_vector_put(&made->column[column], bytes, count));
}

static inline void column_byte(struct columns *made, enum sp_column column, unsigned value)
{
    column_put(made, column, &(uint8_t){(uint8_t)value}, 1);
}

static inline void column_fill(struct columns *made, enum sp_column column, int value, size_t count)
{
    CHECK(sp_vector_reserve(&made->column[column], count));
    memset(made->column[column].data + made->column[column].bytes, value, count);
    made->column[column].bytes += count;
}

/* The gap and the kind of the next page. */
static inline void column_page(struct columns *made, unsigned gap, unsigned kind)
{
    column_byte(made, SP_COLUMN_PAGES, gap);
    column_byte(made, SP_COLUMN_PAGES, kind);
    made->pages++;
}

static inline void column_map(struct columns *made, uint64_t map)
{
    column_byte(made, SP_COLUMN_MAPS, nonzero_bytes(map));
    for (unsigned byte = 0; byte < 8; byte++)
        if (map >> (8 * byte) & 0xff)
            column_byte(made, SP_COLUMN_MAPS, map >> (8 * byte) & 0xff);
}

/* The header and the columns, not compressed, into `frame`; empties the columns. */
static inline void columns_seal(struct columns *made, unsigned flags, struct sp_vector *frame)
{
    frame->bytes = 0;
    CHECK(sp_vector_reserve(frame, 64));
    sp_vector_append(frame, (uint8_t[]){'S', 'R', SP_REDUCED_VERSION, (uint8_t)flags}, 4);
    sp_vector_append_uleb(frame, made->pages);
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        sp_vector_append_uleb(frame, (uint32_t)made->column[column].bytes);
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++) {
        CHECK(sp_vector_put(frame, made->column[column].data, made->column[column].bytes));
        made->column[column].bytes = 0;
    }
    made->pages = 0;
}

static inline void columns_free(struct columns *made)
{
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        sp_vector_free(&made->column[column]);
}

#endif
