/*
 * Records of writes as they travel, and what the standby does with them. A sequence of
 *   offset u64, length u32, kind u32, then `length` bytes of data when the kind is RECORD_DATA     (all little endian)
 */
#ifndef SUBPAGE_DISK_RECORDS_H
#define SUBPAGE_DISK_RECORDS_H

#include <stddef.h>
#include <stdint.h>

enum record_kind { RECORD_DATA, RECORD_ZEROES, RECORD_KINDS };

enum { RECORD_HEADER_BYTES = 16 };

/* NULL when all records are whole and lie on a disk of that size; else what is wrong with them. */
const char *records_check(const uint8_t *payload, size_t bytes, uint64_t disk_bytes, uint64_t *count);

/* Writes all records into the file, in order. Returns 0 or an errno; EBADMSG: they are malformed. */
int records_apply(int fd, const uint8_t *payload, size_t bytes);

/* XXH3-128 of each chunk of what was read from a chunk's beginning on; the last one may be shorter. */
void records_hash_bytes(const uint8_t *bytes, size_t length, uint8_t *out);

/* XXH3-128 of `count` chunks of a disk from `first` on; holes are not read. Returns 0 or an errno; ENODATA: the file is shorter. */
int records_hash(int fd, uint64_t disk_bytes, uint64_t first, uint64_t count, uint8_t *out);

#endif
