/*
 * Which pages were written since the last time, and their bytes. The kernel keeps the marks (userfaultfd WP_ASYNC), and
 * PAGEMAP_SCAN reads them. A mapping that is not registered yet is registered now, from here (track.c); what it holds then
 * counts as written, what it has only reserved does not. Source: Linux Documentation/admin-guide/mm/pagemap.rst (6.7 and later).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "holder.h"

/* The kernel's answers, and what is made of them, are whole pages of the mapping that was asked for. */
static bool lies_in(const struct mapping *mapping, uint64_t start, uint64_t end)
{
    return mapping->start <= start && start <= end && end <= mapping->end && start % PAGE_BYTES == 0 &&
           end % PAGE_BYTES == 0;
}

static void append(struct watch *watch, uint64_t page, uint64_t count, enum find_kind kind)
{
    SP_INVARIANT(count > 0 && page + count <= watch->space.page_count);
    watch->finds = grown(watch->finds, watch->find_count, &watch->find_room, sizeof *watch->finds);
    watch->finds[watch->find_count++] =
        (struct find){.first = (uint32_t)page, .count = (uint32_t)count, .kind = kind};
}

bool note(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end, enum find_kind kind)
{
    SP_INVARIANT(lies_in(mapping, start, end));
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

/* The known pages of a range. */
static void note_known(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end,
                       enum find_kind kind)
{
    const struct space *space = &watch->space;
    if (start >= end)
        return;
    SP_INVARIANT(lies_in(mapping, start, end));
    for (size_t at = space_position(space, start); at < space->count && space_piece(space, at)->start < end; at++) {
        const struct piece *piece = space_piece(space, at);
        uint64_t page = piece_page(piece, start > piece->start ? start : piece->start);
        const uint64_t last = piece_page(piece, end < piece->end ? end : piece->end);
        while ((page = known_next(&watch->known, page, last, true)) < last) {
            uint64_t until = known_next(&watch->known, page, last, false);
            append(watch, page, until - page, kind);
            if (kind != FIND_UNSURE)
                known_set(&watch->known, page, until - page, false);
            page = until;
        }
    }
}

void note_given_back(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end)
{
    note_known(watch, mapping, start, end, mapping->of_file ? FIND_OF_FILE : FIND_EMPTY);
}

void note_unsure(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end)
{
    note_known(watch, mapping, start, end, FIND_UNSURE);
}

static int by_page(const void *a, const void *b)
{
    uint32_t left = ((const struct find *)a)->first, right = ((const struct find *)b)->first;
    return left < right ? -1 : left > right;
}

/* Returns what ends the recording; anything else ends the tracking of this mapping, which is compared from now on. */
static int harvest_mapping(struct watch *watch, const struct mapping *mapping)
{
    bool fresh = false;
    /* Before it is registered, which may join it with its neighbours: then it has another name. */
    int file = mapping->is_private ? -1 : open_mapped_file(watch, mapping);
    int error = track(watch, mapping, &fresh);
    if (!error)
        error = mapping->is_private ? scan_private(watch, mapping) : scan_shared(watch, mapping, file, fresh);
    if (file >= 0)
        close(file);
    if (error == LEFT_CHANGED)
        return 0;
    if (!error)
        track_keep(watch, mapping);
    if (!error || error == ENOSPC)
        return error;
    if (error == ESRCH) /* the memory is gone; that is nothing of this mapping */
        return error;
    track_leave(watch, mapping, error);
    error = scan_untracked(watch, mapping);
    return error == ENOSPC || error == ESRCH ? error : 0;
}

bool watch_is_gone(const struct watch *watch)
{
    uint64_t entry;
    return pread(watch->pagemap, &entry, sizeof entry, 0) == 0;
}

int find_written(struct watch *watch)
{
    watch->find_count = watch->run_count = 0;
    int error = space_read(&watch->space, watch->pid);
    track_begin(watch);
    for (size_t i = 0; i < watch->space.mapping_count && !error; i++) {
        const struct mapping *mapping = &watch->space.mappings[i];
        error = watch->uffd < 0 ? scan_untracked(watch, mapping) : harvest_mapping(watch, mapping);
        /* A thread that has just woken took the mapping away; or all of the memory is gone. What was found stays. */
        if (error == ESRCH)
            error = 0;
    }
    track_end(watch);
    /* Memory that has gone in between looks as if all of it had been given back. */
    return error == 0 && watch_is_gone(watch) ? ESRCH : error;
}

int copy_written(struct watch *watch)
{
    if (watch->find_count > 0)
        qsort(watch->finds, watch->find_count, sizeof *watch->finds, by_page);
    return copy_finds(watch);
}
