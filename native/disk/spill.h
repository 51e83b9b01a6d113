/*
 * A file for the content of records that have no room in memory. It is used in segments: what is put goes behind what was put last, and a
 * segment is used anew once nothing of it is left. When nothing is left at all the file gives its room back.
 *
 * Whoever places and releases holds a lock; writing and reading a place that is one's own needs none.
 */
#ifndef SUBPAGE_DISK_SPILL_H
#define SUBPAGE_DISK_SPILL_H

#include <stdbool.h>
#include <stdint.h>

enum {
    /* Nothing longer is put. */
    SPILL_SEGMENT_BYTES = 1 << 20,
};

struct spill;

/* `fd` is the spill's from then on, and closed with it. At most `bytes_max` are used of the file. NULL: no memory; `fd` stays open. */
struct spill *spill_new(int fd, uint64_t bytes_max);
void spill_free(struct spill *spill);

/* Whether parts of `bytes` together, none longer than a segment, would all find a place. */
bool spill_has_room(const struct spill *spill, uint64_t bytes);
/* A place for 1 to SPILL_SEGMENT_BYTES. There must be room. */
uint64_t spill_place(struct spill *spill, uint32_t bytes);
void spill_release(struct spill *spill, uint64_t at, uint32_t bytes);

/* Return 0 or an errno; ENOSPC or EIO where the file system says nothing and takes or has too little. */
int spill_write(const struct spill *spill, uint64_t at, const uint8_t *from, uint32_t bytes);
int spill_read(const struct spill *spill, uint64_t at, uint8_t *into, uint32_t bytes);

#endif
