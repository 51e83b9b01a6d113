/*
 * What capture is measured against: a plain copy of the same pages, and the pipe that a sender needs around XBZRLE, as
 * QEMU's migration has it: copy the page (the guest may write), encode against the cache, copy into the cache.
 */
#include <string.h>

#include "kernels.h"

bool sp_copy_pages(uint8_t *to, const uint8_t *from, uint64_t pages, const struct sp_run *runs, size_t run_count)
{
    for (size_t run = 0; run < run_count; run++) {
        uint64_t first = runs[run].first, end = first + runs[run].count;
        if (end > pages)
            return false;
        for (uint64_t page = first; page < end; page++)
            memcpy(to + page * SP_PAGE_BYTES, from + page * SP_PAGE_BYTES, SP_PAGE_BYTES);
    }
    return true;
}

int64_t sp_xbzrle_pipe(uint8_t *cache, const uint8_t *ram, uint64_t pages, const struct sp_run *runs, size_t run_count,
                       uint8_t *out, size_t capacity)
{
    int (*encode)(const uint8_t *, const uint8_t *, uint8_t *) = sp_kernels_chosen()->xbzrle_encode;
    uint8_t copy[SP_PAGE_BYTES];
    size_t at = 0;
    int64_t total = 0;
    if (capacity < SP_PAGE_BYTES)
        return -1;
    for (size_t run = 0; run < run_count; run++) {
        uint64_t first = runs[run].first, end = first + runs[run].count;
        if (end > pages)
            return -1;
        for (uint64_t page = first; page < end; page++) {
            uint8_t *cached = cache + page * SP_PAGE_BYTES;
            if (capacity - at < SP_PAGE_BYTES)
                at = 0; /* a full buffer would be sent and used again */
            memcpy(copy, ram + page * SP_PAGE_BYTES, SP_PAGE_BYTES);
            int bytes = encode(cached, copy, out + at);
            if (bytes < 0) {
                memcpy(out + at, copy, SP_PAGE_BYTES);
                bytes = SP_PAGE_BYTES;
            }
            if (bytes > 0)
                memcpy(cached, copy, SP_PAGE_BYTES);
            at += (size_t)bytes;
            total += bytes;
        }
    }
    return total;
}

int sp_xbzrle_encode(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out)
{
    return sp_kernels_chosen()->xbzrle_encode(old_page, new_page, out);
}
