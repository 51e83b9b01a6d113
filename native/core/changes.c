/* What changed in each page of a set, as numbers: what a recording keeps of an epoch. One pass, nothing is encoded. */
#include "kernels.h"

/* Lines fetched ahead when the next page does not follow the present one. */
enum { PREFETCH_LINES = 16 };

static inline __attribute__((always_inline)) void prefetch(const uint8_t *ram, const uint8_t *shadow, uint64_t page)
{
    for (unsigned line = 0; line < PREFETCH_LINES; line++) {
        __builtin_prefetch(ram + page * SP_PAGE_BYTES + line * SP_LINE_BYTES, 0, 3);
        __builtin_prefetch(shadow + page * SP_PAGE_BYTES + line * SP_LINE_BYTES, 0, 3);
    }
}

bool sp_page_changes(const uint8_t *ram, uint8_t *shadow, uint64_t pages, const struct sp_run *runs, size_t run_count,
                     bool update, uint32_t *maps, uint16_t *byte_counts)
{
    const struct sp_kernels *kernels = sp_kernels_chosen();
    for (size_t run = 0; run < run_count; run++)
        if ((uint64_t)runs[run].first + runs[run].count > pages)
            return false;
    for (size_t run = 0; run < run_count; run++) {
        uint64_t page = runs[run].first, end = page + runs[run].count;
        for (; page < end; page++) {
            if (page + 1 == end && run + 1 < run_count && runs[run + 1].first < pages)
                prefetch(ram, shadow, runs[run + 1].first);
            uint64_t map;
            uint64_t at = page * SP_PAGE_BYTES;
            *byte_counts++ = (uint16_t)kernels->changes(ram + at, shadow + at, update, &map);
            *maps++ = (uint32_t)map;
            *maps++ = (uint32_t)(map >> 32);
        }
    }
    return true;
}
