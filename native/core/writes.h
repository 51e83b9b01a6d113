/*
 * Writes to a disk in reduced form: what both sides know of the bytes (docs/reduced-format.md). Data of a record is cut where the
 * disk's aligned blocks begin. The whole lines of each piece go as those of a page do, and what is left of it as it is.
 */
#ifndef SUBPAGE_WRITES_H
#define SUBPAGE_WRITES_H

#include "reduce.h"

enum {
    SP_WRITES_VERSION = 1,
    SP_WRITES_AFTER = 1, /* in the fourth byte of the header, beside the method of compression */
    /* Heads of the records, data that fills no whole line, and then the columns of pages. */
    SP_WRITES_COLUMNS = 2 + SP_COLUMN_COUNT,
    SP_WRITE_HEAD_BYTES = 16, /* a record without its data: offset u64, length u32, kind u32 */
};

struct sp_write {
    const uint8_t *head;
    uint64_t offset;
    uint32_t length;
    bool zeroes;
};

/* What a head says; false: its kind is unknown, or it reaches beyond any disk. */
static inline bool sp_write_head(const uint8_t *head, struct sp_write *write)
{
    uint32_t kind = load32(head + 12);
    *write = (struct sp_write){.head = head, .offset = load64(head), .length = load32(head + 8), .zeroes = kind == 1};
    return kind <= 1 && write->offset <= INT64_MAX;
}

/* Length of the piece that begins `at` bytes into the data. */
static inline uint32_t sp_write_piece(const struct sp_write *write, uint32_t at)
{
    SP_INVARIANT(at < write->length);
    uint32_t room = SP_PAGE_BYTES - (uint32_t)((write->offset + at) % SP_PAGE_BYTES), left = write->length - at;
    return room < left ? room : left;
}

/* The record at `*at`, and on to the next; false: it is cut short, or malformed. */
static inline bool sp_write_parse(const uint8_t *records, size_t bytes, size_t *at, struct sp_write *write)
{
    SP_INVARIANT(*at < bytes);
    if (bytes - *at < SP_WRITE_HEAD_BYTES || !sp_write_head(records + *at, write))
        return false;
    *at += SP_WRITE_HEAD_BYTES;
    if (write->zeroes)
        return true;
    if (write->length > bytes - *at)
        return false;
    *at += write->length;
    return true;
}

#endif
