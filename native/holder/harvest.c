/*
 * Which pages were written since the last time, and their bytes. The kernel keeps the marks (userfaultfd WP_ASYNC);
 * PAGEMAP_SCAN reads and re-arms them in one step. A mapping that is not registered yet is registered now, from here, and
 * all that it holds counts as written. Source: Linux Documentation/admin-guide/mm/pagemap.rst (6.7 and later).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../addon/pagemap.h"
#include "holder.h"

enum { REGION_COUNT = 1024, ENTRY_COUNT = 4096, COPY_RUNS = 512 };

/* Categories of linux/fs.h that pagemap.h does not need. */
#define CATEGORY_FILE (UINT64_C(1) << 2)
#define CATEGORY_ZERO (UINT64_C(1) << 5)

static bool note(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end)
{
    struct space *space = &watch->space;
    struct harvest *harvest = &watch->harvest;
    while (start < end) {
        const struct piece *piece = space_find(space, start);
        if (!piece) {
            if (!space_number(space, mapping, start, end))
                return false;
            continue;
        }
        uint64_t until = piece->end < end ? piece->end : end;
        harvest->runs = grown(harvest->runs, harvest->run_count, &harvest->run_room, sizeof *harvest->runs);
        harvest->runs[harvest->run_count++] = (struct run){
            .first = (uint32_t)(piece->first_page + (start - piece->start) / PAGE_BYTES),
            .count = (uint32_t)((until - start) / PAGE_BYTES),
        };
        start = until;
    }
    return true;
}

/*
 * Written pages of a registered mapping. The zero page, and in private memory a page that is still the file's, have only
 * been read: without an armed entry of their own the kernel would call them written.
 * Returns 0, EPERM when the mapping is not registered, or an errno.
 */
static int scan(struct watch *watch, const struct mapping *mapping)
{
    static struct scan_region regions[REGION_COUNT];
    uint64_t excluded = CATEGORY_ZERO | (mapping->is_private ? CATEGORY_FILE : 0);
    for (uint64_t start = mapping->start; start < mapping->end;) {
        struct scan_argument argument = {
            .size = sizeof argument,
            .flags = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC,
            .start = start,
            .end = mapping->end,
            .vec = (uintptr_t)regions,
            .vec_len = REGION_COUNT,
            .category_inverted = excluded,
            .category_mask = CATEGORY_WRITTEN | excluded,
            .return_mask = CATEGORY_WRITTEN,
        };
        int count = ioctl(watch->pagemap, SCAN_IOCTL, &argument);
        if (count < 0)
            return errno;
        for (int i = 0; i < count; i++)
            if (!note(watch, mapping, regions[i].start, regions[i].end))
                return ENOSPC;
        if (argument.walk_end <= start)
            return EIO;
        start = argument.walk_end;
    }
    return 0;
}

static int register_and_scan(struct watch *watch, const struct mapping *mapping)
{
    struct uffd_failure failure;
    const struct uffd uffd = {.fd = watch->uffd};
    /* Memory that was registered before, and moved or mapped anew, is registered again: that does no harm. */
    if (!uffd_register(&uffd, (const void *)mapping->start, mapping->end - mapping->start, &failure))
        return failure.error;
    return scan(watch, mapping);
}

/* Without tracking: every page that holds something (/proc/PID/pagemap, proc_pid_pagemap(5)). */
static int present(struct watch *watch, const struct mapping *mapping)
{
    static uint64_t entries[ENTRY_COUNT];
    const uint64_t holds = UINT64_C(3) << 62, of_file = UINT64_C(1) << 61;
    for (uint64_t start = mapping->start; start < mapping->end;) {
        uint64_t pages = (mapping->end - start) / PAGE_BYTES;
        size_t count = pages < ENTRY_COUNT ? (size_t)pages : ENTRY_COUNT;
        ssize_t got = pread(watch->pagemap, entries, count * 8, (off_t)(start / PAGE_BYTES * 8));
        if (got < 8)
            return got < 0 ? errno : ESRCH;
        count = (size_t)got / 8;
        for (size_t i = 0; i < count;) {
            size_t end = i;
            while (end < count && (entries[end] & holds) && !(mapping->is_private && (entries[end] & of_file)))
                end++;
            if (end > i && !note(watch, mapping, start + i * PAGE_BYTES, start + end * PAGE_BYTES))
                return ENOSPC;
            i = end + 1;
        }
        start += count * PAGE_BYTES;
    }
    return 0;
}

static int by_page(const void *a, const void *b)
{
    uint32_t left = ((const struct run *)a)->first, right = ((const struct run *)b)->first;
    return left < right ? -1 : left > right;
}

static void sort_and_join(struct harvest *harvest)
{
    qsort(harvest->runs, harvest->run_count, sizeof *harvest->runs, by_page);
    size_t kept = 0;
    harvest->page_count = 0;
    for (size_t i = 0; i < harvest->run_count; i++) {
        struct run run = harvest->runs[i];
        harvest->page_count += run.count;
        if (kept > 0 && harvest->runs[kept - 1].first + harvest->runs[kept - 1].count == run.first)
            harvest->runs[kept - 1].count += run.count;
        else
            harvest->runs[kept++] = run;
    }
    harvest->run_count = kept;
}

/* A page that cannot be read (it lies behind the end of a file) is left as it was. */
static void copy_one_by_one(struct watch *watch, uint64_t address, uint64_t page, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct iovec here = {watch->mirror + (page + i) * PAGE_BYTES, PAGE_BYTES};
        struct iovec there = {(void *)(address + i * PAGE_BYTES), PAGE_BYTES};
        process_vm_readv(watch->pid, &here, 1, &there, 1, 0);
    }
}

struct copies {
    struct iovec here[COPY_RUNS], there[COPY_RUNS];
    size_t count, bytes;
};

static int copy_now(struct watch *watch, struct copies *copies)
{
    if (copies->count == 0)
        return 0;
    ssize_t got = process_vm_readv(watch->pid, copies->here, copies->count, copies->there, copies->count, 0);
    if (got < 0 && errno == ESRCH)
        return ESRCH;
    if (got != (ssize_t)copies->bytes)
        for (size_t i = 0; i < copies->count; i++)
            copy_one_by_one(watch, (uint64_t)copies->there[i].iov_base,
                            (uint64_t)((uint8_t *)copies->here[i].iov_base - watch->mirror) / PAGE_BYTES,
                            copies->here[i].iov_len / PAGE_BYTES);
    copies->count = copies->bytes = 0;
    return 0;
}

static int piece_by_page(const void *a, const void *b)
{
    uint64_t left = (*(const struct piece *const *)a)->first_page;
    uint64_t right = (*(const struct piece *const *)b)->first_page;
    return left < right ? -1 : left > right;
}

/* Runs are by page and may span pieces whose numbers follow each other while their addresses do not. */
static int copy(struct watch *watch)
{
    static struct copies copies;
    static const struct piece **pieces;
    static size_t room;
    const struct space *space = &watch->space;
    if (room < space->count) {
        room = 2 * space->count;
        pieces = realloc(pieces, room * sizeof *pieces);
        if (!pieces)
            abort();
    }
    for (size_t i = 0; i < space->count; i++)
        pieces[i] = &space->pieces[i];
    qsort(pieces, space->count, sizeof *pieces, piece_by_page);
    size_t at = 0;
    for (size_t i = 0; i < watch->harvest.run_count; i++) {
        uint64_t page = watch->harvest.runs[i].first, end = page + watch->harvest.runs[i].count;
        while (page < end) {
            while (pieces[at]->first_page + (pieces[at]->end - pieces[at]->start) / PAGE_BYTES <= page)
                at++;
            const struct piece *piece = pieces[at];
            uint64_t address = piece->start + (page - piece->first_page) * PAGE_BYTES;
            uint64_t pages = (piece->end - address) / PAGE_BYTES;
            if (pages > end - page)
                pages = end - page;
            size_t bytes = pages * PAGE_BYTES;
            copies.here[copies.count] = (struct iovec){watch->mirror + page * PAGE_BYTES, bytes};
            copies.there[copies.count++] = (struct iovec){(void *)address, bytes};
            copies.bytes += bytes;
            page += pages;
            if (copies.count == COPY_RUNS) {
                int error = copy_now(watch, &copies);
                if (error)
                    return error;
            }
        }
    }
    return copy_now(watch, &copies);
}

int harvest_pages(struct watch *watch)
{
    watch->harvest.run_count = 0;
    int error = space_read(&watch->space, watch->pid);
    for (size_t i = 0; i < watch->space.mapping_count && !error; i++) {
        const struct mapping *mapping = &watch->space.mappings[i];
        if (watch->uffd < 0)
            error = present(watch, mapping);
        else if ((error = scan(watch, mapping)) == EPERM)
            error = register_and_scan(watch, mapping);
    }
    if (error)
        return error;
    sort_and_join(&watch->harvest);
    return copy(watch);
}
