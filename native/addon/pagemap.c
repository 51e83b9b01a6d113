/*
 * Which pages of another process were written (or are present): the PAGEMAP_SCAN ioctl on /proc/PID/pagemap.
 *
 * JavaScript opens the file and passes the descriptor. One call reads a whole range and, for written pages, re-arms it
 * in the same step of the kernel: a page written after its report is reported by the next scan, never lost between.
 * Source: Linux Documentation/admin-guide/mm/pagemap.rst, "Pagemap Scan IOCTL" (6.7 and later).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../shim/uffd.h"
#include "../core/invariant.h"
#include "addon.h"
#include "pagemap.h"

#define PAGE_BYTES 4096u
#define REGION_COUNT_MAX 1024u

/*
 * A process that exits gives its memory up first, and a scan of no memory finds nothing and no error. So nothing found
 * counts only if the memory was still there afterwards: reading the pagemap gives end-of-file once it is gone.
 */
static bool memory_is_alive(int fd, uint64_t address)
{
    uint64_t entry;
    if (pread(fd, &entry, sizeof entry, (off_t)(address / PAGE_BYTES * sizeof entry)) > 0)
        return true;
    errno = ESRCH;
    return false;
}

/* Appends to pairs of (first page, page count); joins what touches. `base` takes an address's page to the file's. */
static size_t append(uint32_t *pairs, size_t room, size_t pair_count, const struct scan_region *region, int64_t base)
{
    int64_t page = (int64_t)(region->start / PAGE_BYTES) + base;
    uint64_t length = (region->end - region->start) / PAGE_BYTES;
    /* A page number that was cut to 32 bits would name another page. */
    SP_INVARIANT(region->start < region->end && page >= 0 && (uint64_t)page + length <= UINT64_C(1) << 32);
    SP_INVARIANT(pair_count < room);
    uint32_t first = (uint32_t)page, count = (uint32_t)length;
    if (pair_count > 0 && pairs[2 * pair_count - 2] + pairs[2 * pair_count - 1] == first) {
        pairs[2 * pair_count - 1] += count;
        return pair_count;
    }
    pairs[2 * pair_count] = first;
    pairs[2 * pair_count + 1] = count;
    return pair_count + 1;
}

/*
 * Scans the pages of a run from `*offset` on, which moves to where it stopped: before the end of the run when there is no room.
 * Returns the new count of pairs, or -1 with errno.
 */
static int64_t scan_run(int fd, const struct sp_run *run, uint64_t *offset, int64_t base, uint64_t category, bool rearm,
                        uint32_t *pairs, size_t room, size_t used)
{
    struct scan_region regions[REGION_COUNT_MAX];
    SP_INVARIANT(*offset <= run->count && used <= room);
    /* An address below 0 would be one of the kernel's. */
    SP_INVARIANT((int64_t)run->first - base >= 0);
    uint64_t first = (uint64_t)((int64_t)run->first - base);
    uint64_t start = (first + *offset) * PAGE_BYTES, end = (first + run->count) * PAGE_BYTES;
    while (start < end && used < room) {
        size_t vector = room - used < REGION_COUNT_MAX ? room - used : REGION_COUNT_MAX;
        int count = scan_some(fd, &start, end, category, rearm, regions, vector);
        if (count < 0)
            return -1;
        for (int i = 0; i < count; i++)
            used = append(pairs, room, used, &regions[i], base);
    }
    *offset = start / PAGE_BYTES - first;
    return (int64_t)used;
}

/*
 * pagemapScan(fd, among, runs, base, category, rearm, at, pairs) -> count of pairs filled
 *   among  runs of pages of the file: only these are looked at. Others keep their marks, and are not named
 *   base   page of the file = address / 4096 + base
 *   at     Float64Array [run, pages of it done]; moves to where it stopped
 *   pairs  Uint32Array; when it is full the scan stops early (at[0] < runs): call again, nothing is lost
 * Throws with code ESRCH when the process is gone, EPERM when a range is not registered for tracking.
 */
static napi_value pagemap_scan(napi_env env, napi_callback_info info)
{
    napi_value argv[8], result;
    uint64_t fd, category;
    double base, *at;
    bool rearm;
    const struct sp_run *among;
    size_t run_count;
    uint32_t *pairs;
    size_t pairs_length;
    if (!subpage_args(env, info, 8, argv) || !subpage_get_uint(env, argv[0], INT32_MAX, "fd", &fd) ||
        !subpage_get_runs(env, argv[1], argv[2], &among, &run_count) ||
        !subpage_get_uint(env, argv[4], UINT32_MAX, "category", &category) ||
        !subpage_get_bool(env, argv[5], "rearm", &rearm) || !subpage_get_results(env, argv[6], 2, &at) ||
        !subpage_get_u32s(env, argv[7], "pairs", &pairs, &pairs_length))
        return NULL;
    if (napi_get_value_double(env, argv[3], &base) != napi_ok || pairs_length < 2 ||
        !(base >= -2251799813685248.0 && base <= 4294967296.0)) {
        napi_throw_type_error(env, NULL, "pagemapScan needs a base and room for one pair");
        return NULL;
    }
    if (!(at[0] >= 0 && at[0] < (double)run_count) || !(at[1] >= 0 && at[1] <= among[(size_t)at[0]].count)) {
        napi_throw_type_error(env, NULL, "pagemapScan needs a position in its runs");
        return NULL;
    }
    size_t room = pairs_length / 2, used = 0, run = (size_t)at[0];
    uint64_t offset = (uint64_t)at[1];
    for (size_t i = run; i < run_count; i++)
        if ((double)among[i].first < base) {
            napi_throw_type_error(env, NULL, "pagemapScan needs pages that the process has mapped");
            return NULL;
        }
    while (run < run_count && used < room) {
        int64_t count = scan_run((int)fd, &among[run], &offset, (int64_t)base, category, rearm, pairs, room, used);
        if (count < 0)
            return throw_errno(env, "PAGEMAP_SCAN");
        used = (size_t)count;
        if (offset == among[run].count) {
            run++;
            offset = 0;
        }
    }
    if (!memory_is_alive((int)fd, (uint64_t)((int64_t)among[0].first - (int64_t)base) * PAGE_BYTES))
        return throw_errno(env, "PAGEMAP_SCAN");
    at[0] = (double)run;
    at[1] = (double)offset;
    napi_create_uint32(env, (uint32_t)used, &result);
    return result;
}

/* Tracks four pages of our own, writes the third, and expects exactly that one. Returns what failed, or NULL. */
static const char *probe(struct uffd *uffd, int pagemap, volatile char *pages, struct uffd_failure *failure)
{
    struct scan_region regions[4];
    uint64_t start = (uintptr_t)pages, end = start + 4 * PAGE_BYTES;
    if (!uffd_open(uffd, failure) || !uffd_register(uffd, (const void *)pages, 4 * PAGE_BYTES, failure))
        return failure->step;
    uint64_t cursor = start;
    if (scan_some(pagemap, &cursor, end, CATEGORY_WRITTEN, true, regions, 4) < 0) {
        failure->error = errno;
        return "PAGEMAP_SCAN";
    }
    pages[2 * PAGE_BYTES] = 1;
    cursor = start;
    int count = scan_some(pagemap, &cursor, end, CATEGORY_WRITTEN, true, regions, 4);
    failure->error = 0;
    if (count == 1 && regions[0].start == start + 2 * PAGE_BYTES &&
        regions[0].end == regions[0].start + PAGE_BYTES)
        return NULL;
    return "the kernel did not report the one page that was written";
}

/* userfaultProbe() -> '' when write tracking works here, else the reason in words. Leaves nothing behind. */
static napi_value userfault_probe(napi_env env, napi_callback_info info)
{
    (void)info;
    char text[256] = "";
    struct uffd uffd = {.fd = -1};
    struct uffd_failure failure = {0};
    const char *failed = NULL;
    int memory = memfd_create("subpage-probe", MFD_CLOEXEC);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    void *pages = MAP_FAILED;
    if (memory >= 0 && ftruncate(memory, 4 * PAGE_BYTES) == 0)
        pages = mmap(NULL, 4 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (pagemap < 0 || pages == MAP_FAILED) {
        failure.error = errno;
        failed = pagemap < 0 ? "/proc/self/pagemap" : "shared memory";
    } else {
        failed = probe(&uffd, pagemap, pages, &failure);
    }
    if (failed && failure.error)
        snprintf(text, sizeof text, "%s: %s", failed, strerror(failure.error));
    else if (failed)
        snprintf(text, sizeof text, "%s", failed);
    if (uffd.fd >= 0)
        close(uffd.fd);
    if (pages != MAP_FAILED)
        munmap(pages, 4 * PAGE_BYTES);
    if (pagemap >= 0)
        close(pagemap);
    if (memory >= 0)
        close(memory);
    napi_value result;
    napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &result);
    return result;
}

void subpage_register_pagemap(napi_env env, napi_value exports)
{
    export_function(env, exports, "pagemapScan", pagemap_scan);
    export_function(env, exports, "userfaultProbe", userfault_probe);
}
