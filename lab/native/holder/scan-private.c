/*
 * What was written in a private mapping. Only pages that hold something of the target's own are armed: arming what is only
 * reserved would take page tables for all of it, and time in every epoch. So holes are always without a mark, and so are the
 * zero page and pages that are still the file's, which have only been read.
 *
 * First the kernel is asked, in its quick way, which ranges are without a mark; then, of these and what lies between them, which
 * pages are without one and hold something: they were written. What is known and not among them was given back (madvise(2) MADV_DONTNEED, or something was
 * mapped over it), and counts once: its bytes have become zeros, or the file's.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scan.h"

/* Guard pages hold nothing, but look as if they were swapped. Kernels that do not know the category refuse it. */
static uint64_t guard = CATEGORY_GUARD;

static int scan_written(const struct watch *watch, uint64_t *start, uint64_t end, struct scan_region *regions)
{
    for (;;) {
        const uint64_t excluded = CATEGORY_ZERO | CATEGORY_FILE | guard;
        const struct wanted written = {
            .all = CATEGORY_WRITTEN | excluded,
            .any = CATEGORY_PRESENT | CATEGORY_SWAPPED,
            .inverted = excluded,
            .reported = CATEGORY_WRITTEN | CATEGORY_HUGE,
            .arm = true,
        };
        int count = scan_next(watch->pagemap, &written, start, end, regions, REGION_COUNT);
        if (count >= 0 || errno != EINVAL || guard == 0)
            return count;
        guard = 0;
    }
}

/* Some kernels have no zero page: there, too, a page that was only read is filled. One of our own is read to know. */
static bool filled_by_reading(void)
{
    static enum { UNKNOWN, NO, YES } answer;
    if (answer == UNKNOWN) {
        volatile uint8_t *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        static const struct wanted zero = {.all = CATEGORY_ZERO, .untracked = true};
        struct scan_region region;
        answer = NO;
        if (page != MAP_FAILED && pagemap >= 0 && page[0] == 0) {
            uint64_t start = (uintptr_t)page;
            if (scan_next(pagemap, &zero, &start, start + PAGE_BYTES, &region, 1) == 0)
                answer = YES;
        }
        if (page != MAP_FAILED)
            munmap((void *)page, PAGE_BYTES);
        if (pagemap >= 0)
            close(pagemap);
    }
    return answer == YES;
}

/* A marked stretch of so many bytes is looked at too rather than asking once more. */
static const uint64_t joined_bytes = 128 * PAGE_BYTES;

/* What was given back of a range, from `settled` on. */
static void settle(struct watch *watch, const struct mapping *mapping, const struct scan_region *range, uint64_t settled,
                   uint64_t end)
{
    note_given_back(watch, mapping, range->start > settled ? range->start : settled, end);
}

/*
 * Ranges without marks, in order; what is marked between them is short. A thread that was in the kernel when the others were held
 * may end a page fault meanwhile: then more was written than the ranges say, and may lie between them.
 */
static int take_unmarked(struct watch *watch, const struct mapping *mapping, const struct scan_region *ranges, int count)
{
    static struct scan_region regions[REGION_COUNT];
    int at = 0;
    uint64_t start = ranges[0].start, settled = start;
    while (start < ranges[count - 1].end) {
        int found = scan_written(watch, &start, ranges[count - 1].end, regions);
        if (found < 0)
            return errno;
        for (int i = 0; i < found; i++) {
            SP_INVARIANT(settled <= regions[i].start && regions[i].start < ranges[count - 1].end);
            for (; ranges[at].end <= regions[i].start; at++)
                settle(watch, mapping, &ranges[at], settled, ranges[at].end);
            settle(watch, mapping, &ranges[at], settled, regions[i].start);
            settled = regions[i].end;
            /* The kernel fills a large page at the first touch of any part of it. */
            bool unsure = regions[i].categories & CATEGORY_HUGE || filled_by_reading();
            enum find_kind kind = unsure ? FIND_UNSURE : FIND_WRITTEN;
            if (!note(watch, mapping, regions[i].start, settled, kind))
                return ENOSPC;
        }
    }
    for (; at < count; at++)
        settle(watch, mapping, &ranges[at], settled, ranges[at].end);
    return 0;
}

/* What of the holes was filled since is written, and the rest of them given back. Both are in order. */
static int take_holes(struct watch *watch, const struct mapping *mapping, const struct scan_region *holes, int hole_count,
                      const struct scan_region *filled, int filled_count)
{
    int at = 0;
    for (int i = 0; i < hole_count; i++) {
        uint64_t settled = holes[i].start;
        while (at < filled_count && filled[at].end <= settled)
            at++;
        for (int next = at; next < filled_count && filled[next].start < holes[i].end; next++) {
            note_given_back(watch, mapping, settled, filled[next].start);
            settled = filled[next].end;
        }
        note_given_back(watch, mapping, settled, holes[i].end);
    }
    for (at = 0; at < filled_count; at++)
        if (!note(watch, mapping, filled[at].start, filled[at].end, FIND_WRITTEN))
            return ENOSPC;
    return 0;
}

/*
 * Pages that are not there: swapped out, or given back, which their marks hide. While the marks are away a thread in the kernel
 * may fill one of them, and would be forgotten with the mark that it gets then: what is there afterwards counts as written.
 */
static int take_absent(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end)
{
    static struct scan_region holes[REGION_COUNT], filled[REGION_COUNT];
    static const struct wanted absent = {
        .all = CATEGORY_PRESENT | CATEGORY_SWAPPED,
        .inverted = CATEGORY_PRESENT | CATEGORY_SWAPPED,
    };
    static const struct wanted there = {.all = CATEGORY_PRESENT | CATEGORY_FILE, .inverted = CATEGORY_FILE};
    const struct uffd uffd = {.fd = watch->uffd};
    while (start < end) {
        /* No more pages than regions: each answer is whole. */
        const uint64_t bytes = end - start < REGION_COUNT * PAGE_BYTES ? end - start : REGION_COUNT * PAGE_BYTES;
        uint64_t at = start;
        if (!uffd_mark(&uffd, start, bytes, false))
            return errno;
        int hole_count = scan_next(watch->pagemap, &absent, &at, start + bytes, holes, REGION_COUNT);
        int error = hole_count < 0 ? errno : 0;
        if (!uffd_mark(&uffd, start, bytes, true))
            return errno;
        if (error)
            return error;
        SP_INVARIANT(at == start + bytes);
        at = start;
        int filled_count = scan_next(watch->pagemap, &there, &at, start + bytes, filled, REGION_COUNT);
        if (filled_count < 0)
            return errno;
        SP_INVARIANT(at == start + bytes);
        error = take_holes(watch, mapping, holes, hole_count, filled, filled_count);
        if (error)
            return error;
        start += bytes;
    }
    return 0;
}

/*
 * Known pages of a file's private mapping keep their mark when they are given back. A mark without a page looks like a page
 * that is swapped out; only when the mark is taken away the one becomes a hole.
 */
static int take_marked(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end)
{
    static struct scan_region regions[REGION_COUNT];
    static const struct wanted not_own = {
        .any = CATEGORY_PRESENT | CATEGORY_FILE,
        .inverted = CATEGORY_PRESENT,
        .reported = CATEGORY_PRESENT,
    };
    while (start < end) {
        int count = scan_next(watch->pagemap, &not_own, &start, end, regions, REGION_COUNT);
        if (count < 0)
            return errno;
        for (int i = 0; i < count; i++) {
            const struct scan_region *region = &regions[i];
            if (region->categories & CATEGORY_PRESENT)
                note_given_back(watch, mapping, region->start, region->end);
            else {
                int error = take_absent(watch, mapping, region->start, region->end);
                if (error)
                    return error;
            }
        }
    }
    return 0;
}

static int take_marked_of_file(struct watch *watch, const struct mapping *mapping)
{
    const struct space *space = &watch->space;
    for (size_t at = space_position(space, mapping->start);
         at < space->count && space_piece(space, at)->start < mapping->end; at++) {
        const struct piece *piece = space_piece(space, at);
        uint64_t page = piece_page(piece, mapping->start > piece->start ? mapping->start : piece->start);
        const uint64_t last = piece_page(piece, mapping->end < piece->end ? mapping->end : piece->end);
        while ((page = known_next(&watch->known, page, last, true)) < last) {
            uint64_t until = known_next(&watch->known, page, last, false);
            uint64_t address = piece->start + (page - piece->first_page) * PAGE_BYTES;
            int error = take_marked(watch, mapping, address, address + (until - page) * PAGE_BYTES);
            if (error)
                return error;
            page = until;
        }
    }
    return 0;
}

int scan_private(struct watch *watch, const struct mapping *mapping)
{
    static struct scan_region regions[REGION_COUNT];
    for (uint64_t start = mapping->start; start < mapping->end;) {
        int count = scan_next(watch->pagemap, &unmarked, &start, mapping->end, regions, REGION_COUNT);
        if (count < 0)
            return errno;
        for (int from = 0, to; from < count; from = to) {
            for (to = from + 1; to < count && regions[to].start - regions[to - 1].end <= joined_bytes; to++)
                continue;
            int error = take_unmarked(watch, mapping, &regions[from], to - from);
            if (error)
                return error;
        }
    }
    return mapping->of_file ? take_marked_of_file(watch, mapping) : 0;
}
