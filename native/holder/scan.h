/* PAGEMAP_SCAN of the target, for whatever in the holder reads it. */
#ifndef SUBPAGE_HOLDER_SCAN_H
#define SUBPAGE_HOLDER_SCAN_H

#include "../addon/pagemap.h"
#include "holder.h"

enum { REGION_COUNT = 1024 };

/* Categories of linux/fs.h that pagemap.h does not need. */
#define CATEGORY_FILE (UINT64_C(1) << 2)
#define CATEGORY_SWAPPED (UINT64_C(1) << 4)
#define CATEGORY_ZERO (UINT64_C(1) << 5)
#define CATEGORY_HUGE (UINT64_C(1) << 6)
#define CATEGORY_GUARD (UINT64_C(1) << 8) /* Linux 6.15 */

/* What a page must be: all of `all`, one of `any` unless it is 0; both after the bits of `inverted` are turned round. */
struct wanted {
    uint64_t all, any, inverted, reported;
    bool arm;
    bool untracked; /* of any mapping, not only of those that a userfaultfd tracks */
};

/* Which was written, in the one form that the kernel has a quick way for: sixteen times as fast as any other. */
static const struct wanted unmarked = {.all = CATEGORY_WRITTEN, .reported = CATEGORY_WRITTEN};
static const struct wanted unmarked_to_arm = {.all = CATEGORY_WRITTEN, .reported = CATEGORY_WRITTEN, .arm = true};

/*
 * Up to `room` regions, from `*start` on, which moves to where the walk stopped. Returns their count, or -1 with errno: EPERM
 * when the mapping is not registered.
 */
static inline int scan_next(const struct watch *watch, const struct wanted *wanted, uint64_t *start, uint64_t end,
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
    int count = ioctl(watch->pagemap, SCAN_IOCTL, &argument);
    if (count < 0)
        return -1;
    if (argument.walk_end <= *start || argument.walk_end > end) {
        errno = EIO;
        return -1;
    }
    *start = argument.walk_end;
    return count;
}

#endif
