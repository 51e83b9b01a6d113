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
#include "scan.h"

/* Without the file nobody knows what shared memory holds that is not in the page tables. */
static void note_not_held(struct watch *watch, const struct mapping *mapping, int file, uint64_t start, uint64_t end)
{
    (file < 0 ? note_unsure : note_given_back)(watch, mapping, start, end);
}

/* Part of a mapping that is not armed. `fresh`: pages in it may be known, from what was mapped there before. */
static int take_unarmed(struct watch *watch, const struct mapping *mapping, int file, uint64_t start, uint64_t end,
                        bool fresh)
{
    const struct uffd uffd = {.fd = watch->uffd};
    const struct space *space = &watch->space;
    uint64_t settled = start;
    struct block held = {0};
    int error;
    while (start < end && (error = next_held(watch, mapping, file, start, end, &held)) != ENXIO) {
        if (error)
            return error;
        /* The blocks of what is held, together: they are armed once, however many holes they have. */
        uint64_t from = space_block(space, mapping, held.start).start, to = space_block(space, mapping, held.end - 1).end;
        if (from < start)
            from = start;
        if (to > end)
            to = end;
        /* First: of what a thread in the kernel writes meanwhile, before is among what is held, and after loses its mark. */
        if (!uffd_mark(&uffd, from, to - from, true))
            return errno;
        for (uint64_t at = from; at < to; at = held.end) {
            error = next_held_armed(watch, mapping, file, at, to, &held);
            if (error == ENXIO)
                break;
            if (error)
                return error;
            if (fresh)
                note_not_held(watch, mapping, file, settled, held.start);
            settled = held.end;
            if (!note(watch, mapping, held.start, held.end, FIND_UNSURE))
                return ENOSPC;
        }
        start = to;
    }
    if (fresh)
        note_not_held(watch, mapping, file, settled, end);
    return 0;
}

static int take_armed(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end)
{
    static struct scan_region regions[REGION_COUNT];
    while (start < end) {
        int count = scan_next(watch->pagemap, &unmarked_to_arm, &start, end, regions, REGION_COUNT);
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
    const struct piece *piece = at < space->count ? space_piece(space, at) : NULL;
    bool numbered = piece && piece->start <= start;
    uint64_t end = piece ? (numbered ? piece->end : piece->start) : mapping->end;
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

int scan_shared(struct watch *watch, const struct mapping *mapping, int file, bool fresh)
{
    struct block part;
    int error = 0;
    if (fresh)
        return take_fresh(watch, mapping, file);
    for (uint64_t at = mapping->start; at < mapping->end && !error; at = part.end)
        error = next_part(&watch->space, mapping, at, &part)
                    ? take_armed(watch, mapping, part.start, part.end)
                    : take_unarmed(watch, mapping, file, part.start, part.end, false);
    return error;
}
