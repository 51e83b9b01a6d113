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
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../shim/uffd.h"
#include "../core/invariant.h"
#include "addon.h"
#include "pagemap.h"

#define PAGE_BYTES 4096u
#define REGION_COUNT_MAX 1024u
#define SCAN_THREADS_MAX 64
/* What is scanned in one piece. Threads take slices in turn, so that one that comes late costs little. */
#define SLICE_PAGES 16384u

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

struct slice {
    size_t run;      /* where it begins: a run of `among`, */
    uint64_t offset; /* and a page of it */
    uint64_t pages;
    uint32_t *pairs; /* found: (first page, page count) */
    size_t room, used;
};

struct scan {
    int fd;
    const struct sp_run *among;
    int64_t base; /* page of the file = address / 4096 + base */
    uint64_t category;
    bool rearm;
    struct slice *slices;
    size_t slice_count;
    atomic_size_t next;
    atomic_int error;
};

/* Appends to pairs of (first page, page count); joins what touches. */
static void append(struct slice *slice, uint64_t first, uint64_t count)
{
    /* A page number that was cut to 32 bits would name another page. */
    SP_INVARIANT(count > 0 && first + count <= UINT64_C(1) << 32 && slice->used < slice->room);
    uint32_t *last = slice->used > 0 ? &slice->pairs[2 * slice->used - 2] : NULL;
    if (last && (uint64_t)last[0] + last[1] == first) {
        last[1] += (uint32_t)count;
        return;
    }
    slice->pairs[2 * slice->used] = (uint32_t)first;
    slice->pairs[2 * slice->used + 1] = (uint32_t)count;
    slice->used++;
}

/* Room for what one call of the kernel names, before it takes any marks. */
static bool make_room(struct slice *slice)
{
    if (slice->room - slice->used >= REGION_COUNT_MAX)
        return true;
    size_t room = 2 * slice->room + REGION_COUNT_MAX;
    uint32_t *pairs = realloc(slice->pairs, room * 2 * sizeof *pairs);
    if (!pairs) {
        errno = ENOMEM;
        return false;
    }
    slice->pairs = pairs;
    slice->room = room;
    return true;
}

/* Pages of one run. False with errno. */
static bool scan_run(const struct scan *scan, struct slice *slice, uint64_t first, uint64_t count)
{
    struct scan_region regions[REGION_COUNT_MAX];
    /* An address below 0 would be one of the kernel's. */
    SP_INVARIANT((int64_t)first - scan->base >= 0);
    uint64_t start = (uint64_t)((int64_t)first - scan->base) * PAGE_BYTES, end = start + count * PAGE_BYTES;
    while (start < end) {
        if (!make_room(slice))
            return false;
        int found = scan_some(scan->fd, &start, end, scan->category, scan->rearm, regions, REGION_COUNT_MAX);
        if (found < 0)
            return false;
        for (int i = 0; i < found; i++) {
            int64_t page = (int64_t)(regions[i].start / PAGE_BYTES) + scan->base;
            SP_INVARIANT(regions[i].start < regions[i].end && page >= 0);
            append(slice, (uint64_t)page, (regions[i].end - regions[i].start) / PAGE_BYTES);
        }
    }
    return true;
}

static bool scan_slice(const struct scan *scan, struct slice *slice)
{
    uint64_t left = slice->pages, offset = slice->offset;
    for (size_t run = slice->run; left > 0; run++, offset = 0) {
        SP_INVARIANT(offset < scan->among[run].count);
        uint64_t rest = scan->among[run].count - offset, count = rest < left ? rest : left;
        if (!scan_run(scan, slice, scan->among[run].first + offset, count))
            return false;
        left -= count;
    }
    return true;
}

static void *take_slices(void *argument)
{
    struct scan *scan = argument;
    for (;;) {
        size_t mine = atomic_fetch_add(&scan->next, 1);
        if (mine >= scan->slice_count || atomic_load(&scan->error) != 0)
            return NULL;
        if (!scan_slice(scan, &scan->slices[mine]))
            atomic_store(&scan->error, errno);
    }
}

/* In this thread and `threads` - 1 others; with fewer when they cannot be made. Errno, or 0. */
static int scan_all(struct scan *scan, size_t threads)
{
    pthread_t others[SCAN_THREADS_MAX];
    size_t made = 0;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    SP_INVARIANT(threads > 0 && threads <= SCAN_THREADS_MAX);
    while (made + 1 < threads && made + 1 < scan->slice_count &&
           pthread_create(&others[made], NULL, take_slices, scan) == 0)
        made++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    take_slices(scan);
    for (size_t i = 0; i < made; i++)
        pthread_join(others[i], NULL);
    return atomic_load(&scan->error);
}

/* Cuts runs of so many pages in all into slices; one slice when there is one thread. False when there is no memory. */
static bool cut(struct scan *scan, uint64_t pages, size_t threads)
{
    uint64_t slice_pages = threads == 1 ? pages : SLICE_PAGES;
    scan->slice_count = (size_t)((pages + slice_pages - 1) / slice_pages);
    scan->slices = calloc(scan->slice_count, sizeof *scan->slices);
    if (!scan->slices)
        return false;
    size_t run = 0;
    uint64_t offset = 0;
    for (size_t i = 0; i < scan->slice_count; i++) {
        uint64_t left = pages - i * slice_pages, count = left < slice_pages ? left : slice_pages;
        scan->slices[i] = (struct slice){.run = run, .offset = offset, .pages = count};
        for (offset += count; offset > 0 && offset >= scan->among[run].count; run++)
            offset -= scan->among[run].count;
    }
    return true;
}

/* All that the slices have found, in order: a Uint32Array. NULL with an exception. */
static napi_value joined(napi_env env, const struct scan *scan)
{
    struct slice whole = {0};
    for (size_t i = 0; i < scan->slice_count; i++)
        whole.room += scan->slices[i].used;
    napi_value buffer, pairs;
    void *data = NULL;
    if (napi_create_arraybuffer(env, whole.room * 2 * sizeof *whole.pairs, &data, &buffer) != napi_ok)
        return NULL;
    whole.pairs = data;
    for (size_t i = 0; i < scan->slice_count; i++)
        for (size_t pair = 0; pair < scan->slices[i].used; pair++)
            append(&whole, scan->slices[i].pairs[2 * pair], scan->slices[i].pairs[2 * pair + 1]);
    return napi_create_typedarray(env, napi_uint32_array, 2 * whole.used, buffer, 0, &pairs) == napi_ok ? pairs : NULL;
}

/*
 * pagemapScan(fd, among, runs, base, category, rearm, threads) -> Uint32Array of pairs (first page, page count), in order
 *   among    runs of pages of the file: only these are looked at. Others keep their marks, and are not named
 *   base     page of the file = address / 4096 + base
 *   threads  that scan at the same time, 1 to 64
 * Throws with code ESRCH when the process is gone, EPERM when a range is not registered for tracking. What was armed until then is
 * not told.
 */
static napi_value pagemap_scan(napi_env env, napi_callback_info info)
{
    napi_value argv[7], result = NULL;
    uint64_t fd, category, threads, pages = 0;
    double base;
    bool rearm;
    const struct sp_run *among;
    size_t run_count;
    if (!subpage_args(env, info, 7, argv) || !subpage_get_uint(env, argv[0], INT32_MAX, "fd", &fd) ||
        !subpage_get_runs(env, argv[1], argv[2], &among, &run_count) ||
        !subpage_get_uint(env, argv[4], UINT32_MAX, "category", &category) ||
        !subpage_get_bool(env, argv[5], "rearm", &rearm) ||
        !subpage_get_uint(env, argv[6], SCAN_THREADS_MAX, "threads", &threads))
        return NULL;
    if (napi_get_value_double(env, argv[3], &base) != napi_ok || threads == 0 ||
        !(base >= -2251799813685248.0 && base <= 4294967296.0)) {
        napi_throw_type_error(env, NULL, "pagemapScan needs a base and a thread");
        return NULL;
    }
    for (size_t i = 0; i < run_count; i++) {
        if ((double)among[i].first < base || among[i].count == 0) {
            napi_throw_type_error(env, NULL, "pagemapScan needs pages that the process has mapped");
            return NULL;
        }
        pages += among[i].count;
    }
    struct scan scan = {
        .fd = (int)fd, .among = among, .base = (int64_t)base, .category = category, .rearm = rearm};
    int error = pages > 0 && !cut(&scan, pages, threads) ? ENOMEM : pages > 0 ? scan_all(&scan, threads) : 0;
    if (error == 0 && pages > 0 &&
        !memory_is_alive(scan.fd, (uint64_t)((int64_t)among[0].first - scan.base) * PAGE_BYTES))
        error = errno;
    if (error == 0)
        result = joined(env, &scan);
    for (size_t i = 0; i < scan.slice_count; i++)
        free(scan.slices[i].pairs);
    free(scan.slices);
    if (error == 0)
        return result;
    errno = error;
    return throw_errno(env, "PAGEMAP_SCAN");
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
