/*
 * What is there in a mapping that is not tracked: copy.c compares it with what it was. And what shared memory holds, whether the
 * target has mapped it or not.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "scan.h"

#define HUGETLBFS_MAGIC 0x958458f6

enum { ENTRY_COUNT = 4096 };

/* Without the file only pages are found that the target has mapped. */
int open_mapped_file(const struct watch *watch, const struct mapping *mapping)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/map_files/%lx-%lx", watch->pid, mapping->start, mapping->end);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct statfs fs;
    if (file < 0 || (fstatfs(file, &fs) == 0 && fs.f_type != HUGETLBFS_MAGIC))
        return file;
    close(file); /* it calls holes data, and a read of one would take a large page */
    return -1;
}

/* The next range that the page tables have. Returns 0, ENXIO when there is none, or an errno. */
static int next_mapped(const struct watch *watch, uint64_t categories, uint64_t start, uint64_t end, struct block *held)
{
    const struct wanted mapped = {.any = categories, .untracked = true};
    while (start < end) {
        struct scan_region region;
        int count = scan_next(watch->pagemap, &mapped, &start, end, &region, 1);
        if (count < 0)
            return errno;
        if (count > 0) {
            *held = (struct block){.start = region.start, .end = region.end};
            return 0;
        }
    }
    return ENXIO;
}

/* The next range that holds something: as the file says, or, where it cannot, the page tables. Returns as next_mapped. */
static int next_of(const struct watch *watch, const struct mapping *mapping, int file, uint64_t categories,
                   uint64_t start, uint64_t end, struct block *held)
{
    off_t data = file < 0 ? -1 : lseek(file, (off_t)(mapping->offset + (start - mapping->start)), SEEK_DATA);
    if (data < 0 && file >= 0 && errno == ENXIO)
        return ENXIO;
    off_t hole = data < 0 ? -1 : lseek(file, data, SEEK_HOLE);
    if (hole < 0) /* no file, or one that cannot say */
        return next_mapped(watch, categories, start, end, held);
    held->start = mapping->start + ((uint64_t)data - mapping->offset) / PAGE_BYTES * PAGE_BYTES;
    held->end = mapping->start + ((uint64_t)hole - mapping->offset + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (held->end > end)
        held->end = end;
    return held->start < end ? 0 : ENXIO;
}

int next_held(const struct watch *watch, const struct mapping *mapping, int file, uint64_t start, uint64_t end,
              struct block *held)
{
    return next_of(watch, mapping, file, CATEGORY_PRESENT | CATEGORY_SWAPPED, start, end, held);
}

/* A mark without a page looks like a page that is swapped out, which of shared memory none is. */
int next_held_armed(const struct watch *watch, const struct mapping *mapping, int file, uint64_t start, uint64_t end,
                    struct block *held)
{
    return next_of(watch, mapping, file, CATEGORY_PRESENT, start, end, held);
}

static bool holds(const struct mapping *mapping, uint64_t entry)
{
    const uint64_t present_or_swapped = UINT64_C(3) << 62, of_file = UINT64_C(1) << 61;
    return (entry & present_or_swapped) && !(mapping->is_private && (entry & of_file));
}

/* Before Linux 6.7: page by page, reserved ones too (/proc/PID/pagemap, proc_pid_pagemap(5)). */
static int scan_entries(struct watch *watch, const struct mapping *mapping)
{
    static uint64_t entries[ENTRY_COUNT];
    for (uint64_t start = mapping->start; start < mapping->end;) {
        uint64_t pages = (mapping->end - start) / PAGE_BYTES;
        size_t count = pages < ENTRY_COUNT ? (size_t)pages : ENTRY_COUNT;
        ssize_t got = pread(watch->pagemap, entries, count * 8, (off_t)(start / PAGE_BYTES * 8));
        if (got < 8)
            return got < 0 ? errno : ESRCH;
        SP_INVARIANT((size_t)got <= count * sizeof *entries);
        count = (size_t)got / 8;
        for (size_t i = 0; i < count;) {
            size_t from = i;
            while (i < count && holds(mapping, entries[i]))
                i++;
            if (i > from && !note(watch, mapping, start + from * PAGE_BYTES, start + i * PAGE_BYTES, FIND_COMPARED))
                return ENOSPC;
            from = i;
            while (i < count && !holds(mapping, entries[i]))
                i++;
            if (mapping->is_private)
                note_given_back(watch, mapping, start + from * PAGE_BYTES, start + i * PAGE_BYTES);
        }
        start += count * PAGE_BYTES;
    }
    return 0;
}

/* A page of shared memory that this process does not map is there all the same. */
static int scan_shared_untracked(struct watch *watch, const struct mapping *mapping)
{
    int file = open_mapped_file(watch, mapping), error = 0;
    struct block held;
    for (uint64_t at = mapping->start; !error && at < mapping->end; at = held.end) {
        error = next_held(watch, mapping, file, at, mapping->end, &held);
        if (!error && !note(watch, mapping, held.start, held.end, FIND_COMPARED))
            error = ENOSPC;
    }
    if (file >= 0)
        close(file);
    if (error == ENOTTY)
        return scan_entries(watch, mapping);
    return error == ENXIO ? 0 : error;
}

int scan_untracked(struct watch *watch, const struct mapping *mapping)
{
    static struct scan_region regions[REGION_COUNT];
    static const struct wanted own = {
        .all = CATEGORY_ZERO | CATEGORY_FILE,
        .any = CATEGORY_PRESENT | CATEGORY_SWAPPED,
        .inverted = CATEGORY_ZERO | CATEGORY_FILE,
        .reported = CATEGORY_PRESENT,
        .untracked = true,
    };
    if (!mapping->is_private)
        return scan_shared_untracked(watch, mapping);
    uint64_t start = mapping->start, settled = start;
    while (start < mapping->end) {
        int count = scan_next(watch->pagemap, &own, &start, mapping->end, regions, REGION_COUNT);
        if (count < 0)
            return errno == ENOTTY ? scan_entries(watch, mapping) : errno == EIO ? ESRCH : errno;
        for (int i = 0; i < count; i++) {
            note_given_back(watch, mapping, settled, regions[i].start);
            settled = regions[i].end;
            if (!note(watch, mapping, regions[i].start, settled, FIND_COMPARED))
                return ENOSPC;
        }
    }
    note_given_back(watch, mapping, settled, mapping->end);
    return 0;
}
