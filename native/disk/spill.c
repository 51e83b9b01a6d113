/* See spill.h. */
#define _GNU_SOURCE
#include "spill.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "../core/invariant.h"

struct spill {
    int fd;
    uint32_t count, free; /* segments, and those of which nothing is left; the one that is filled is not free */
    uint32_t filling, filled; /* a segment, and the bytes of it that were given */
    uint64_t live; /* bytes in all */
    uint32_t left[]; /* bytes of each segment that are somebody's */
};

struct spill *spill_new(int fd, uint64_t bytes_max)
{
    uint64_t count = bytes_max / SPILL_SEGMENT_BYTES;
    if (count > UINT32_MAX)
        count = UINT32_MAX;
    struct spill *spill = calloc(1, sizeof *spill + (size_t)count * sizeof spill->left[0]);
    if (!spill)
        return NULL;
    spill->fd = fd;
    spill->count = spill->free = (uint32_t)count;
    spill->filled = SPILL_SEGMENT_BYTES; /* none is filled yet */
    return spill;
}

void spill_free(struct spill *spill)
{
    if (!spill)
        return;
    close(spill->fd);
    free(spill);
}

/* Two segments one after the other have more than one's bytes: the second was begun by what did not fit into the first. */
bool spill_has_room(const struct spill *spill, uint64_t bytes)
{
    if (bytes <= SPILL_SEGMENT_BYTES)
        return bytes <= SPILL_SEGMENT_BYTES - spill->filled || spill->free > 0;
    return 2 * (bytes / SPILL_SEGMENT_BYTES + 1) <= spill->free;
}

uint64_t spill_place(struct spill *spill, uint32_t bytes)
{
    SP_INVARIANT(bytes > 0 && bytes <= SPILL_SEGMENT_BYTES);
    if (bytes > SPILL_SEGMENT_BYTES - spill->filled) {
        SP_INVARIANT(spill->free > 0);
        bool begun = spill->filled < SPILL_SEGMENT_BYTES || spill->live > 0;
        /* What was filled until now is free at once where nothing of it is left. */
        if (begun && spill->left[spill->filling] == 0)
            spill->free++;
        do
            spill->filling = (spill->filling + 1) % spill->count;
        while (spill->left[spill->filling] > 0);
        spill->free--;
        spill->filled = 0;
    }
    uint64_t at = (uint64_t)spill->filling * SPILL_SEGMENT_BYTES + spill->filled;
    spill->filled += bytes;
    spill->left[spill->filling] += bytes;
    spill->live += bytes;
    return at;
}

void spill_release(struct spill *spill, uint64_t at, uint32_t bytes)
{
    uint64_t segment = at / SPILL_SEGMENT_BYTES;
    SP_INVARIANT(segment < spill->count && spill->left[segment] >= bytes && spill->live >= bytes);
    spill->left[segment] -= bytes;
    spill->live -= bytes;
    if (spill->left[segment] == 0 && segment != spill->filling)
        spill->free++;
    if (spill->live > 0)
        return;
    spill->free = spill->count;
    spill->filled = SPILL_SEGMENT_BYTES;
    /* A file system that cannot says so when it is full. */
    (void)!ftruncate(spill->fd, 0);
}

int spill_write(const struct spill *spill, uint64_t at, const uint8_t *from, uint32_t bytes)
{
    while (bytes > 0) {
        ssize_t done = pwrite(spill->fd, from, bytes, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : ENOSPC;
        from += done;
        at += (uint64_t)done;
        bytes -= (uint32_t)done;
    }
    return 0;
}

int spill_read(const struct spill *spill, uint64_t at, uint8_t *into, uint32_t bytes)
{
    while (bytes > 0) {
        ssize_t done = pread(spill->fd, into, bytes, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : EIO;
        into += done;
        at += (uint64_t)done;
        bytes -= (uint32_t)done;
    }
    return 0;
}
