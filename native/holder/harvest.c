/*
 * Which pages were written since the last time, and their bytes. The kernel keeps the marks (userfaultfd WP_ASYNC), and
 * PAGEMAP_SCAN reads them. A mapping that is not registered yet is registered now, from here; what it holds then counts as
 * written, what it has only reserved does not. Source: Linux Documentation/admin-guide/mm/pagemap.rst (6.7 and later).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "holder.h"

enum { ENTRY_COUNT = 4096 };

static void append(struct watch *watch, uint64_t page, uint64_t count, enum find_kind kind)
{
    watch->finds = grown(watch->finds, watch->find_count, &watch->find_room, sizeof *watch->finds);
    watch->finds[watch->find_count++] =
        (struct find){.first = (uint32_t)page, .count = (uint32_t)count, .kind = kind};
}

bool note(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end, enum find_kind kind)
{
    while (start < end) {
        const struct piece *piece = space_find(&watch->space, start);
        if (!piece) {
            if (!space_number(&watch->space, mapping, start, end))
                return false;
            continue;
        }
        uint64_t until = piece->end < end ? piece->end : end;
        append(watch, piece_page(piece, start), (until - start) / PAGE_BYTES, kind);
        start = until;
    }
    return true;
}

void note_given_back(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end)
{
    const struct space *space = &watch->space;
    for (size_t at = space_position(space, start); at < space->count && space->pieces[at].start < end; at++) {
        const struct piece *piece = &space->pieces[at];
        uint64_t page = piece_page(piece, start > piece->start ? start : piece->start);
        const uint64_t last = piece_page(piece, end < piece->end ? end : piece->end);
        while ((page = known_next(&watch->known, page, last, true)) < last) {
            uint64_t until = known_next(&watch->known, page, last, false);
            append(watch, page, until - page, mapping->of_file ? FIND_OF_FILE : FIND_EMPTY);
            known_set(&watch->known, page, until - page, false);
            page = until;
        }
    }
}

static bool holds(const struct mapping *mapping, uint64_t entry)
{
    const uint64_t present_or_swapped = UINT64_C(3) << 62, of_file = UINT64_C(1) << 61;
    return (entry & present_or_swapped) && !(mapping->is_private && (entry & of_file));
}

/* Without tracking: every page that holds something (/proc/PID/pagemap, proc_pid_pagemap(5)). */
static int scan_untracked(struct watch *watch, const struct mapping *mapping)
{
    static uint64_t entries[ENTRY_COUNT];
    for (uint64_t start = mapping->start; start < mapping->end;) {
        uint64_t pages = (mapping->end - start) / PAGE_BYTES;
        size_t count = pages < ENTRY_COUNT ? (size_t)pages : ENTRY_COUNT;
        ssize_t got = pread(watch->pagemap, entries, count * 8, (off_t)(start / PAGE_BYTES * 8));
        if (got < 8)
            return got < 0 ? errno : ESRCH;
        count = (size_t)got / 8;
        for (size_t i = 0; i < count;) {
            size_t from = i;
            while (i < count && holds(mapping, entries[i]))
                i++;
            if (i > from && !note(watch, mapping, start + from * PAGE_BYTES, start + i * PAGE_BYTES, FIND_WRITTEN))
                return ENOSPC;
            from = i;
            while (i < count && !holds(mapping, entries[i]))
                i++;
            /* A page of shared memory that this process does not map is there all the same. */
            if (mapping->is_private)
                note_given_back(watch, mapping, start + from * PAGE_BYTES, start + i * PAGE_BYTES);
        }
        start += count * PAGE_BYTES;
    }
    return 0;
}

static int by_page(const void *a, const void *b)
{
    uint32_t left = ((const struct find *)a)->first, right = ((const struct find *)b)->first;
    return left < right ? -1 : left > right;
}

int find_written(struct watch *watch)
{
    watch->find_count = watch->run_count = 0;
    int error = space_read(&watch->space, watch->pid);
    for (size_t i = 0; i < watch->space.mapping_count && !error; i++) {
        const struct mapping *mapping = &watch->space.mappings[i];
        if (watch->uffd < 0)
            error = scan_untracked(watch, mapping);
        else
            error = mapping->is_private ? scan_private(watch, mapping) : scan_shared(watch, mapping);
    }
    return error;
}

int copy_written(struct watch *watch)
{
    if (watch->find_count > 0)
        qsort(watch->finds, watch->find_count, sizeof *watch->finds, by_page);
    return copy_finds(watch);
}
