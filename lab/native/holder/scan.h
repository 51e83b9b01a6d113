/* What the holder asks PAGEMAP_SCAN of its target. */
#ifndef SUBPAGE_HOLDER_SCAN_H
#define SUBPAGE_HOLDER_SCAN_H

#include "addon/pagemap.h"
#include "holder.h"

enum { REGION_COUNT = 1024 };

/* Categories of linux/fs.h that pagemap.h does not need. */
#define CATEGORY_FILE (UINT64_C(1) << 2)
#define CATEGORY_SWAPPED (UINT64_C(1) << 4)
#define CATEGORY_ZERO (UINT64_C(1) << 5)
#define CATEGORY_HUGE (UINT64_C(1) << 6)
#define CATEGORY_GUARD (UINT64_C(1) << 8) /* Linux 6.15 */

/* Which was written, in the one form that the kernel has a quick way for: sixteen times as fast as any other. */
static const struct wanted unmarked = {.all = CATEGORY_WRITTEN, .reported = CATEGORY_WRITTEN};
static const struct wanted unmarked_to_arm = {.all = CATEGORY_WRITTEN, .reported = CATEGORY_WRITTEN, .arm = true};

#endif
