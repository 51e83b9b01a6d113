/*
 * What was written in a shared mapping. A hole in the page tables says nothing of shared memory: the file may hold the page
 * all the same, and the first read of a page that it does not hold makes one, as a write does. Only a mark tells them apart, and a
 * hole can have one, at the cost of page tables. So memory that has numbers (space.c: a block in which something was seen) is
 * armed as a whole: in it every page without a mark was written, whatever became of it since.
 *
 * In the rest of a mapping nothing is armed, and the file is asked what it holds (lseek(2) SEEK_DATA): nothing, as a rule. A
 * block in which something has appeared gets numbers and is armed. What it held before that is not known to be written:
 * pages of zeros do not count.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "scan.h"

/*
 * The file of the mapping; -1 when it may not be opened (that takes CAP_CHECKPOINT_RESTORE): then only pages are found that the
 * target has mapped.
 */
static int open_file(const struct watch *watch, const struct mapping *mapping)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/map_files/%lx-%lx", watch->pid, mapping->start, mapping->end);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* The next range that the page tables have. Returns 0, ENXIO when there is none, or an errno. */
static int next_mapped(const struct watch *watch, uint64_t start, uint64_t end, struct block *held)
{
    static const struct wanted mapped = {.any = CATEGORY_PRESENT | CATEGORY_SWAPPED};
    while (start < end) {
        struct scan_region region;
        int count = scan_next(watch, &mapped, &start, end, &region, 1);
        if (count < 0)
            return errno;
        if (count > 0) {
            *held = (struct block){.start = region.start, .end = region.end};
            return 0;
        }
    }
    return ENXIO;
}

/* The next range that holds something. Returns as next_mapped. */
static int next_held(const struct watch *watch, const struct mapping *mapping, int file, uint64_t start, uint64_t end,
                     struct block *held)
{
    off_t data = file < 0 ? -1 : lseek(file, (off_t)(mapping->offset + (start - mapping->start)), SEEK_DATA);
    if (data < 0 && file >= 0 && errno == ENXIO)
        return ENXIO;
    off_t hole = data < 0 ? -1 : lseek(file, data, SEEK_HOLE);
    if (hole < 0) /* no file, or one that cannot say: hugetlbfs */
        return next_mapped(watch, start, end, held);
    held->start = mapping->start + ((uint64_t)data - mapping->offset) / PAGE_BYTES * PAGE_BYTES;
    held->end = mapping->start + ((uint64_t)hole - mapping->offset + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (held->end > end)
        held->end = end;
    return held->start < end ? 0 : ENXIO;
}

/* Part of a mapping that is not armed. `fresh`: pages in it may be known, from what was mapped there before. */
static int take_unarmed(struct watch *watch, const struct mapping *mapping, int file, uint64_t start, uint64_t end,
                        bool fresh)
{
    const struct uffd uffd = {.fd = watch->uffd};
    uint64_t settled = start;
    struct block held = {0};
    int error;
    while (start < end && (error = next_held(watch, mapping, file, start, end, &held)) != ENXIO) {
        if (error)
            return error;
        /* One block at a time: it is armed once, however many holes it has. */
        struct block block = space_block(mapping, held.start);
        uint64_t from = block.start > start ? block.start : start, to = block.end < end ? block.end : end;
        while (!error && held.start < to) {
            if (held.end > to)
                held.end = to;
            if (fresh)
                note_given_back(watch, mapping, settled, held.start);
            settled = held.end;
            if (!note(watch, mapping, held.start, held.end, FIND_UNSURE))
                return ENOSPC;
            error = held.end < to ? next_held(watch, mapping, file, held.end, to, &held) : ENXIO;
        }
        if (error != ENXIO && error != 0)
            return error;
        if (!uffd_mark(&uffd, from, to - from, true))
            return errno;
        start = to;
    }
    if (fresh)
        note_given_back(watch, mapping, settled, end);
    return 0;
}

static int take_armed(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end)
{
    static struct scan_region regions[REGION_COUNT];
    while (start < end) {
        int count = scan_next(watch, &unmarked_to_arm, &start, end, regions, REGION_COUNT);
        if (count < 0)
            return errno;
        for (int i = 0; i < count; i++)
            if (!note(watch, mapping, regions[i].start, regions[i].end, FIND_WRITTEN))
                return ENOSPC;
    }
    return 0;
}

/* The next part of the mapping from `start` on: with numbers, or without any. */
static bool next_part(const struct space *space, const struct mapping *mapping, uint64_t start, struct block *part)
{
    size_t at = space_position(space, start);
    bool numbered = at < space->count && space->pieces[at].start <= start;
    uint64_t end = mapping->end;
    if (at < space->count && numbered)
        end = space->pieces[at].end;
    else if (at < space->count)
        end = space->pieces[at].start;
    *part = (struct block){.start = start, .end = end < mapping->end ? end : mapping->end};
    return numbered;
}

/* A mapping that has just been registered: what has numbers from before is armed too, so that numbers mean marks. */
static int take_fresh(struct watch *watch, const struct mapping *mapping, int file)
{
    const struct uffd uffd = {.fd = watch->uffd};
    struct block part;
    for (uint64_t at = mapping->start; at < mapping->end; at = part.end)
        if (next_part(&watch->space, mapping, at, &part) &&
            !uffd_mark(&uffd, part.start, part.end - part.start, true))
            return errno;
    return take_unarmed(watch, mapping, file, mapping->start, mapping->end, true);
}

static int take(struct watch *watch, const struct mapping *mapping, int file)
{
    struct scan_region region;
    uint64_t probe = mapping->start;
    if (scan_next(watch, &unmarked, &probe, mapping->start + PAGE_BYTES, &region, 1) < 0) {
        if (errno != EPERM)
            return errno;
        int error = register_mapping(watch, mapping);
        return error ? error : take_fresh(watch, mapping, file);
    }
    struct block part;
    int error = 0;
    for (uint64_t at = mapping->start; at < mapping->end && !error; at = part.end)
        error = next_part(&watch->space, mapping, at, &part)
                    ? take_armed(watch, mapping, part.start, part.end)
                    : take_unarmed(watch, mapping, file, part.start, part.end, false);
    return error;
}

int scan_shared(struct watch *watch, const struct mapping *mapping)
{
    int file = open_file(watch, mapping);
    int error = take(watch, mapping, file);
    if (file >= 0)
        close(file);
    return error;
}
