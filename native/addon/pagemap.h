/*
 * The PAGEMAP_SCAN ioctl, for whatever reads it: written pages (pagemap.c), accessed pages (forget.c), the holder (holder/scan.h).
 * Source: Linux Documentation/admin-guide/mm/pagemap.rst, "Pagemap Scan IOCTL" (6.7 and later).
 */
#ifndef SUBPAGE_PAGEMAP_H
#define SUBPAGE_PAGEMAP_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "../core/invariant.h"
#include "../shim/uffd.h"

/* linux/fs.h of kernels before 6.7 lacks all of these. Named apart from it, so that newer headers do not clash. */
struct scan_argument {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct scan_region {
    uint64_t start, end, categories;
};
_Static_assert(sizeof(struct scan_argument) == 96, "struct pm_scan_arg of the kernel");
_Static_assert(sizeof(struct scan_region) == 24, "struct page_region of the kernel");
#define SCAN_IOCTL _IOWR('f', 16, struct scan_argument)
#define SCAN_WP_MATCHING UINT64_C(1)
#define SCAN_CHECK_WPASYNC UINT64_C(2)
#define CATEGORY_WRITTEN (UINT64_C(1) << 1)
#define CATEGORY_PRESENT (UINT64_C(1) << 3)

/* What a page must be: all of `all`, one of `any` unless it is 0; both after the bits of `inverted` are turned round. */
struct wanted {
    uint64_t all, any, inverted, reported;
    bool arm;
    bool untracked; /* of any mapping, not only of those that a userfaultfd tracks */
};

/*
 * Up to `room` regions, from `*start` on, which moves to where the walk stopped. Returns their count, or -1 with errno: EPERM
 * when a mapping is not registered, and only registered ones are asked for.
 */
static inline int scan_next(int pagemap, const struct wanted *wanted, uint64_t *start, uint64_t end,
                            struct scan_region *regions, size_t room)
{
    struct scan_argument argument = {
        .size = sizeof argument,
        .flags = (wanted->untracked ? 0 : SCAN_CHECK_WPASYNC) | (wanted->arm ? SCAN_WP_MATCHING : 0),
        .start = *start,
        .end = end,
        .vec = (uintptr_t)regions,
        .vec_len = room,
        .category_inverted = wanted->inverted,
        .category_mask = wanted->all,
        .category_anyof_mask = wanted->any,
        .return_mask = wanted->reported,
    };
    int count = ioctl(pagemap, SCAN_IOCTL, &argument);
    if (count < 0)
        return -1;
    if (argument.walk_end <= *start || argument.walk_end > end) {
        errno = EIO;
        return -1;
    }
    SP_INVARIANT((size_t)count <= room);
    /*
     * The kernel walks in steps of 512 ranges, and after a last one that ended in order it tells where the step before ended (seen
     * with Linux 6.18): what it has reported and armed since would be scanned a second time.
     */
    *start = argument.walk_end;
    if (count > 0 && regions[count - 1].end > *start)
        *start = regions[count - 1].end;
    SP_INVARIANT(*start <= end);
    return count;
}

/* Pages of one category; with `rearm` of registered mappings only, and their marks are taken. */
static inline int scan_some(int pagemap, uint64_t *start, uint64_t end, uint64_t category, bool rearm,
                            struct scan_region *regions, size_t room)
{
    struct wanted wanted = {.all = category, .reported = category, .arm = rearm, .untracked = !rearm};
    return scan_next(pagemap, &wanted, start, end, regions, room);
}

#endif
