/* See records.h. */
#define _GNU_SOURCE
#include "records.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "../core/bytes.h"
#include "../core/invariant.h"
#include "journal.h"

struct parsed {
    uint64_t offset;
    uint32_t length, kind;
    const uint8_t *data;
};

/* Reads the record at `*at` and goes on to the next. NULL, or what is wrong with it. */
static const char *parse(const uint8_t *payload, size_t bytes, size_t *at, uint64_t disk_bytes, struct parsed *record)
{
    SP_INVARIANT(*at < bytes);
    if (bytes - *at < RECORD_HEADER_BYTES)
        return "a record of a disk ends within its header";
    record->offset = load64(payload + *at);
    record->length = load32(payload + *at + 8);
    record->kind = load32(payload + *at + 12);
    *at += RECORD_HEADER_BYTES;
    if (record->kind >= RECORD_KINDS)
        return "a record of a disk has an unknown kind";
    if (record->length == 0)
        return "a record of a disk is empty";
    if (record->length > JOURNAL_WRITE_BYTES_MAX)
        return "a record of a disk is longer than any write";
    if (record->offset > disk_bytes || record->length > disk_bytes - record->offset)
        return "a record reaches beyond the end of the disk";
    record->data = payload + *at;
    if (record->kind == RECORD_DATA) {
        if (record->length > bytes - *at)
            return "a record of a disk ends within its data";
        *at += record->length;
    }
    SP_INVARIANT(*at <= bytes);
    return NULL;
}

const char *records_check(const uint8_t *payload, size_t bytes, uint64_t disk_bytes, uint64_t *count)
{
    struct parsed record;
    *count = 0;
    for (size_t at = 0; at < bytes; ++*count) {
        const char *problem = parse(payload, bytes, &at, disk_bytes, &record);
        if (problem)
            return problem;
    }
    return NULL;
}

static int write_all(int fd, uint64_t offset, const uint8_t *data, size_t length)
{
    while (length > 0) {
        ssize_t written = pwrite(fd, data, length, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? errno : EIO;
        SP_INVARIANT((size_t)written <= length);
        offset += (uint64_t)written;
        data += written;
        length -= (size_t)written;
    }
    return 0;
}

static int write_zeroes(int fd, uint64_t offset, size_t length)
{
    static const uint8_t zeroes[JOURNAL_CHUNK_BYTES];
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) == 0)
        return 0;
    /* Not every file system and device can, nor at every offset. */
    int error = 0;
    for (size_t part; error == 0 && length > 0; offset += part, length -= part) {
        part = length < sizeof zeroes ? length : sizeof zeroes;
        error = write_all(fd, offset, zeroes, part);
    }
    return error;
}

int records_apply(int fd, const uint8_t *payload, size_t bytes)
{
    struct parsed record;
    int error = 0;
    for (size_t at = 0; error == 0 && at < bytes;) {
        if (parse(payload, bytes, &at, INT64_MAX, &record))
            return EBADMSG;
        error = record.kind == RECORD_ZEROES ? write_zeroes(fd, record.offset, record.length)
                                             : write_all(fd, record.offset, record.data, record.length);
    }
    return error;
}

/* ---- hashes of a disk */

static void hash_into(uint8_t *out, const uint8_t *chunk, size_t length)
{
    XXH128_canonicalFromHash((XXH128_canonical_t *)out, XXH3_128bits(chunk, length));
}

static int read_all(int fd, uint64_t offset, uint8_t *into, size_t length)
{
    while (length > 0) {
        ssize_t got = pread(fd, into, length, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? errno : ENODATA;
        offset += (uint64_t)got;
        into += got;
        length -= (size_t)got;
    }
    return 0;
}

/* The end of the hole that begins at `offset`, which is at most `end`; `offset` itself when there are data, or nobody knows. */
static uint64_t hole_end(int fd, uint64_t offset, uint64_t end)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? end : offset;
    return (uint64_t)data < end ? (uint64_t)data : end;
}

void records_hash_bytes(const uint8_t *bytes, size_t length, uint8_t *out)
{
    for (size_t at = 0; at < length; at += JOURNAL_CHUNK_BYTES, out += JOURNAL_HASH_BYTES)
        hash_into(out, bytes + at, length - at < JOURNAL_CHUNK_BYTES ? length - at : JOURNAL_CHUNK_BYTES);
}

int records_hash(int fd, uint64_t disk_bytes, uint64_t first, uint64_t count, uint8_t *out)
{
    enum { READ_BYTES = 16 * JOURNAL_CHUNK_BYTES };
    uint8_t zero_hash[JOURNAL_HASH_BYTES];
    uint8_t *buffer = calloc(1, READ_BYTES);
    uint64_t offset = first * JOURNAL_CHUNK_BYTES, end = (first + count) * JOURNAL_CHUNK_BYTES;
    int error = 0;
    if (!buffer)
        return ENOMEM;
    if (end > disk_bytes)
        end = disk_bytes;
    off_t size = lseek(fd, 0, SEEK_END);
    if (size < 0)
        error = errno;
    else if ((uint64_t)size < end)
        error = ENODATA;
    hash_into(zero_hash, buffer, JOURNAL_CHUNK_BYTES);
    while (error == 0 && offset < end) {
        uint64_t hole = hole_end(fd, offset, end);
        for (; offset < end && hole - offset >= JOURNAL_CHUNK_BYTES; out += JOURNAL_HASH_BYTES, offset += JOURNAL_CHUNK_BYTES)
            memcpy(out, zero_hash, JOURNAL_HASH_BYTES);
        size_t length = end - offset < READ_BYTES ? (size_t)(end - offset) : READ_BYTES;
        error = read_all(fd, offset, buffer, length);
        for (size_t at = 0; error == 0 && at < length; at += JOURNAL_CHUNK_BYTES, out += JOURNAL_HASH_BYTES)
            hash_into(out, buffer + at, length - at < JOURNAL_CHUNK_BYTES ? length - at : JOURNAL_CHUNK_BYTES);
        offset += length;
    }
    free(buffer);
    return error;
}
