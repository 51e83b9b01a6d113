/*
 * Writes to a disk in reduced form: what both sides know of the bytes (docs/reduced-format.md). Data of a record is cut where the
 * disk's aligned blocks begin: what fills whole ones goes as pages do, the rest as it is.
 */
#ifndef SUBPAGE_WRITES_H
#define SUBPAGE_WRITES_H

#include "reduce.h"

enum {
    SP_WRITES_VERSION = 1,
    SP_WRITES_AFTER = 1, /* in the fourth byte of the header, beside the method of compression */
    /* Heads of the records, data that fills no whole block, and then the columns of pages. */
    SP_WRITES_COLUMNS = 2 + SP_COLUMN_COUNT,
    SP_WRITE_HEAD_BYTES = 16, /* a record without its data: offset u64, length u32, kind u32 */
};

struct sp_write {
    const uint8_t *head;
    uint32_t length;
    bool zeroes;
    uint32_t before, blocks, behind; /* bytes before the first whole block, whole blocks, bytes behind the last */
};

/* How the data of a write lies; false: its kind is unknown, or it reaches beyond any disk. */
static inline bool sp_write_cut(const uint8_t *head, struct sp_write *write)
{
    uint64_t offset = load64(head);
    uint32_t kind = load32(head + 12), misaligned = (uint32_t)(-offset % SP_PAGE_BYTES);
    *write = (struct sp_write){.head = head, .length = load32(head + 8), .zeroes = kind == 1};
    if (kind > 1 || offset > INT64_MAX)
        return false;
    if (write->zeroes)
        return true;
    write->before = misaligned < write->length ? misaligned : write->length;
    write->blocks = (write->length - write->before) / SP_PAGE_BYTES;
    write->behind = (write->length - write->before) % SP_PAGE_BYTES;
    return true;
}

/* The record at `*at`, and on to the next; false: it is cut short, or malformed. */
static inline bool sp_write_parse(const uint8_t *records, size_t bytes, size_t *at, struct sp_write *write)
{
    SP_INVARIANT(*at < bytes);
    if (bytes - *at < SP_WRITE_HEAD_BYTES || !sp_write_cut(records + *at, write))
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
