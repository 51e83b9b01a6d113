/*
 * The bytes of what was found, from the target into the mirror, and which of it counts.
 *
 * They are read from /proc/PID/mem and not with process_vm_readv(2): that pins each page, and for it the kernel gives the target a
 * copy of every page that it still shares with its parent or children since fork(2) (gup_must_unshare). Watching would double
 * their memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "holder.h"

static int piece_by_page(const void *a, const void *b)
{
    uint64_t left = (*(const struct piece *const *)a)->first_page;
    uint64_t right = (*(const struct piece *const *)b)->first_page;
    return left < right ? -1 : left > right;
}

/* Pages that count, one after the other. */
static void count_pages(struct watch *watch, uint64_t page, uint64_t count)
{
    struct run *last = watch->run_count > 0 ? &watch->runs[watch->run_count - 1] : NULL;
    if (last && (uint64_t)last->first + last->count > page)
        abort(); /* each page is found once */
    if (last && (uint64_t)last->first + last->count == page) {
        last->count += (uint32_t)count;
        return;
    }
    watch->runs = grown(watch->runs, watch->run_count, &watch->run_room, sizeof *watch->runs);
    watch->runs[watch->run_count++] = (struct run){.first = (uint32_t)page, .count = (uint32_t)count};
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_BYTES - 1) == 0;
}

/* Pages whose bytes are in the mirror now. */
static void count_read(struct watch *watch, uint64_t page, uint64_t count, enum find_kind kind)
{
    if (kind != FIND_UNSURE) {
        if (kind == FIND_WRITTEN)
            known_set(&watch->known, page, count, true);
        count_pages(watch, page, count);
        return;
    }
    for (uint64_t end = page + count; page < end; page++) {
        if (!known_has(&watch->known, page) && is_zero(watch->mirror + page * PAGE_BYTES))
            continue;
        known_set(&watch->known, page, 1, true);
        count_pages(watch, page, 1);
    }
}

/* Returns 0, or ESRCH when the memory is gone. */
static int read_pages(struct watch *watch, uint64_t address, uint64_t page, uint64_t count, enum find_kind kind)
{
    while (count > 0) {
        ssize_t got = pread(watch->mem, watch->mirror + page * PAGE_BYTES, count * PAGE_BYTES, (off_t)address);
        if (got == 0)
            return ESRCH;
        uint64_t pages = got < 0 ? 0 : (uint64_t)got / PAGE_BYTES;
        if (pages > 0)
            count_read(watch, page, pages, kind);
        else {
            /* It lies behind the end of a file, or is a guard page: left as it was; when it never held anything it does not count. */
            pages = 1;
            if (known_has(&watch->known, page))
                count_pages(watch, page, 1);
        }
        page += pages;
        address += pages * PAGE_BYTES;
        count -= pages;
    }
    return 0;
}

/* A find lies in one piece: space.c gives numbers, and never takes them away while the program runs. */
int copy_finds(struct watch *watch)
{
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
    if (space->count > 0)
        qsort(pieces, space->count, sizeof *pieces, piece_by_page);
    size_t at = 0;
    for (size_t i = 0; i < watch->find_count; i++) {
        const struct find *find = &watch->finds[i];
        while (piece_page(pieces[at], pieces[at]->end) <= find->first)
            at++;
        const struct piece *piece = pieces[at];
        if (find->kind == FIND_EMPTY) {
            memset(watch->mirror + (uint64_t)find->first * PAGE_BYTES, 0, (size_t)find->count * PAGE_BYTES);
            count_pages(watch, find->first, find->count);
            continue;
        }
        uint64_t address = piece->start + (find->first - piece->first_page) * PAGE_BYTES;
        int error = read_pages(watch, address, find->first, find->count, find->kind);
        if (error)
            return error;
    }
    return 0;
}
