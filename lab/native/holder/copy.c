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

/* Pages that count, one after the other. */
static void count_pages(struct watch *watch, uint64_t page, uint64_t count)
{
    struct run *last = watch->run_count > 0 ? &watch->runs[watch->run_count - 1] : NULL;
    /* Each page is found once. */
    SP_INVARIANT(!last || (uint64_t)last->first + last->count <= page);
    SP_INVARIANT(count > 0 && page + count <= watch->space.page_count);
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
        if (!known_has(&watch->known, page) && is_zero(mirror_of(watch, page, 1)))
            continue;
        known_set(&watch->known, page, 1, true);
        count_pages(watch, page, 1);
    }
}

/* Returns 0, or ESRCH when the memory is gone. */
static int read_pages(struct watch *watch, uint64_t address, uint64_t page, uint64_t count, enum find_kind kind)
{
    while (count > 0) {
        ssize_t got = pread(watch->mem, mirror_of(watch, page, count), count * PAGE_BYTES, (off_t)address);
        if (got == 0)
            return ESRCH;
        uint64_t pages = got < 0 ? 0 : (uint64_t)got / PAGE_BYTES;
        SP_INVARIANT(pages <= count);
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

/* What was read counts where it differs from the mirror. */
static void count_changed(struct watch *watch, uint64_t page, const uint8_t *bytes, uint64_t count)
{
    for (; count > 0; page++, count--, bytes += PAGE_BYTES) {
        uint8_t *ours = mirror_of(watch, page, 1);
        if (memcmp(ours, bytes, PAGE_BYTES) == 0)
            continue;
        memcpy(ours, bytes, PAGE_BYTES);
        known_set(&watch->known, page, 1, true);
        count_pages(watch, page, 1);
    }
}

/*
 * The file of a shared mapping has its pages also where the target cannot be asked for them: a fault there would be for a
 * userfaultfd of its own to serve.
 */
static ssize_t read_file(const struct watch *watch, uint64_t address, uint8_t *bytes, size_t length)
{
    const struct space *space = &watch->space;
    size_t low = 0, high = space->mapping_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (space->mappings[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    const struct mapping *mapping = &space->mappings[low];
    if (low == space->mapping_count || mapping->start > address || mapping->is_private)
        return -1;
    int file = open_mapped_file(watch, mapping);
    if (file < 0)
        return -1;
    ssize_t got = pread(file, bytes, length, (off_t)(mapping->offset + (address - mapping->start)));
    close(file);
    return got;
}

/* Returns as read_pages. */
static int compare_pages(struct watch *watch, uint64_t address, uint64_t page, uint64_t count)
{
    static uint8_t bytes[64 * PAGE_BYTES];
    while (count > 0) {
        size_t length = count < 64 ? (size_t)count * PAGE_BYTES : sizeof bytes;
        ssize_t got = pread(watch->mem, bytes, length, (off_t)address);
        if (got == 0)
            return ESRCH;
        if (got < PAGE_BYTES)
            got = read_file(watch, address, bytes, length);
        uint64_t pages = got < PAGE_BYTES ? 0 : (uint64_t)got / PAGE_BYTES;
        SP_INVARIANT(pages * PAGE_BYTES <= length);
        count_changed(watch, page, bytes, pages);
        if (pages == 0)
            pages = 1; /* as in read_pages; nothing says that it has changed */
        page += pages;
        address += pages * PAGE_BYTES;
        count -= pages;
    }
    return 0;
}

static int copy_find(struct watch *watch, const struct piece *piece, const struct find *find)
{
    /* Of another piece the address would be another page's. */
    SP_INVARIANT(find->first >= piece->first_page && (uint64_t)find->first + find->count <= piece_page(piece, piece->end));
    uint64_t address = piece->start + (find->first - piece->first_page) * PAGE_BYTES;
    switch (find->kind) {
    case FIND_EMPTY:
        memset(mirror_of(watch, find->first, find->count), 0, (size_t)find->count * PAGE_BYTES);
        count_pages(watch, find->first, find->count);
        return 0;
    case FIND_COMPARED:
        return compare_pages(watch, address, find->first, find->count);
    default:
        return read_pages(watch, address, find->first, find->count, find->kind);
    }
}

/* A find lies in one piece: space.c gives numbers, and never takes them away while the program runs. */
int copy_finds(struct watch *watch)
{
    const struct space *space = &watch->space;
    uint64_t done = 0;
    size_t at = 0;
    for (size_t i = 0; i < watch->find_count; i++) {
        struct find find = watch->finds[i];
        const uint64_t end = (uint64_t)find.first + find.count;
        if (end <= done)
            continue;
        /* Of a mapping that can no longer be tracked some was found already. */
        if (find.first < done)
            find = (struct find){.first = (uint32_t)done, .count = (uint32_t)(end - done), .kind = find.kind};
        done = end;
        while (at < space->numbered_count && piece_page(&space->numbered[at], space->numbered[at].end) <= find.first)
            at++;
        SP_INVARIANT(at < space->numbered_count);
        int error = copy_find(watch, &space->numbered[at], &find);
        if (error)
            return error;
    }
    return 0;
}
