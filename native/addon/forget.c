/*
 * The agent's side of forgetting accesses: posts requests to the thread inside QEMU (native/shim/forget.h says how and why
 * it is safe), and proves on a few pages of its own that this kernel behaves as that needs.
 */
#define _GNU_SOURCE
#include "../shim/forget.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "addon.h"
#include "pagemap.h"

static const napi_type_tag forget_tag = {0x1f0c5d2be0a94d77u, 0xb46a90d8f3e1c225u};

struct handle {
    struct forget *request; /* NULL once closed */
};

static void unmap(struct handle *handle)
{
    if (handle->request)
        munmap(handle->request, FORGET_FILE_BYTES);
    handle->request = NULL;
}

static void finalize(napi_env env, void *data, void *hint)
{
    (void)env;
    (void)hint;
    unmap(data);
    free(data);
}

static struct forget *map_request(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return NULL;
    struct stat file;
    void *page = MAP_FAILED;
    if (fstat(fd, &file) == 0 && file.st_size >= FORGET_FILE_BYTES)
        page = mmap(NULL, FORGET_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    else
        errno = EINVAL;
    int error = errno;
    close(fd);
    errno = error;
    return page == MAP_FAILED ? NULL : page;
}

/* forgetOpen(path) -> handle. Throws with code EINVAL when the file is too short. */
static napi_value forget_open(napi_env env, napi_callback_info info)
{
    size_t length;
    napi_value argv[1], object;
    char path[4096];
    if (!subpage_args(env, info, 1, argv))
        return NULL;
    if (napi_get_value_string_utf8(env, argv[0], path, sizeof path, &length) != napi_ok ||
        length >= sizeof path - 1) {
        napi_throw_type_error(env, NULL, "forgetOpen(path)");
        return NULL;
    }
    struct handle *handle = malloc(sizeof *handle);
    if (!handle)
        return throw_errno(env, "forgetOpen");
    handle->request = map_request(path);
    if (!handle->request) {
        free(handle);
        return throw_errno(env, path);
    }
    if (napi_create_object(env, &object) != napi_ok || napi_type_tag_object(env, object, &forget_tag) != napi_ok ||
        napi_wrap(env, object, handle, finalize, NULL, NULL) != napi_ok) {
        unmap(handle);
        free(handle);
        return NULL;
    }
    return object;
}

static struct handle *arguments(napi_env env, napi_callback_info info, size_t wanted, napi_value *argv)
{
    bool ours = false;
    void *handle = NULL;
    if (!subpage_args(env, info, wanted, argv))
        return NULL;
    if (napi_check_object_type_tag(env, argv[0], &forget_tag, &ours) == napi_ok && ours &&
        napi_unwrap(env, argv[0], &handle) == napi_ok && ((struct handle *)handle)->request)
        return handle;
    napi_throw_type_error(env, NULL, "not an open channel to forget through");
    return NULL;
}

/* forgetPost(channel, pairs, runs) -> number of the request. Only when the one before is done. */
static napi_value forget_post(napi_env env, napi_callback_info info)
{
    napi_value argv[3], result;
    const struct sp_run *runs;
    size_t count;
    struct handle *handle = arguments(env, info, 3, argv);
    if (!handle || !subpage_get_runs(env, argv[1], argv[2], &runs, &count))
        return NULL;
    if (count > FORGET_RUN_COUNT_MAX) {
        napi_throw_type_error(env, NULL, "too many runs for one request");
        return NULL;
    }
    struct forget *request = handle->request;
    _Static_assert(sizeof(struct sp_run) == sizeof(struct forget_run), "runs are pairs of uint32");
    memcpy(request->runs, runs, count * sizeof *runs);
    request->run_count = (uint32_t)count;
    uint32_t number = atomic_fetch_add(&request->requested, 1) + 1;
    forget_wake(&request->requested);
    napi_create_uint32(env, number, &result);
    return result;
}

/* forgetStatus(channel, results): requested, done, error, ns, pages */
static napi_value forget_status(napi_env env, napi_callback_info info)
{
    napi_value argv[2];
    double *results;
    struct handle *handle = arguments(env, info, 2, argv);
    if (!handle || !subpage_get_results(env, argv[1], 5, &results))
        return NULL;
    struct forget *request = handle->request;
    results[0] = atomic_load(&request->requested);
    results[1] = atomic_load(&request->done);
    results[2] = request->error;
    results[3] = (double)request->ns;
    results[4] = (double)request->pages;
    return NULL;
}

static napi_value forget_close(napi_env env, napi_callback_info info)
{
    napi_value argv[1];
    struct handle *handle = arguments(env, info, 1, argv);
    if (handle)
        unmap(handle);
    return NULL;
}

#define PROBE_BYTES (4u << 20)
#define TABLE_PAGES 512u
#define PAGE 4096u

static long count_pages(int pagemap, uint64_t start, uint64_t pages, uint64_t category, bool rearm)
{
    struct scan_region regions[16];
    uint64_t cursor = start, end = start + pages * PAGE;
    int count = scan_some(pagemap, &cursor, end, category, rearm, regions, 16);
    long found = 0;
    for (int i = 0; i < count; i++)
        found += (long)((regions[i].end - regions[i].start) / PAGE);
    return count < 0 ? -1 : found;
}

static void drop(volatile uint8_t *pages, size_t page_count)
{
    for (size_t at = 0; at < page_count * PAGE; at += FORGET_PIECE_BYTES)
        madvise((void *)(pages + at), FORGET_PIECE_BYTES, MADV_DONTNEED);
}

/* `pages` is a whole page table's worth, aligned to it. Returns what this kernel gets wrong, or NULL. */
static const char *probe(int pagemap, volatile uint8_t *pages, double *unused)
{
    (void)unused;
    uint64_t start = (uintptr_t)pages;
    for (size_t i = 0; i < TABLE_PAGES; i++)
        pages[i * PAGE] = (uint8_t)i;
    if (count_pages(pagemap, start, TABLE_PAGES, CATEGORY_WRITTEN, true) < 0)
        return "PAGEMAP_SCAN";
    drop(pages, TABLE_PAGES);
    if (count_pages(pagemap, start, TABLE_PAGES, CATEGORY_PRESENT, false) != 0)
        return "forgotten pages count as accessed";
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < 8; i++)
        sum += pages[2 * i * PAGE];
    if (count_pages(pagemap, start, TABLE_PAGES, CATEGORY_PRESENT, false) != 8)
        return "the pages that count as accessed are not those that were read";
    if (count_pages(pagemap, start, TABLE_PAGES, CATEGORY_WRITTEN, true) != 0)
        return "forgotten pages count as written";
    for (size_t i = 0; i < TABLE_PAGES; i++)
        pages[i * PAGE]++;
    drop(pages, TABLE_PAGES);
    if (count_pages(pagemap, start, TABLE_PAGES, CATEGORY_WRITTEN, true) != TABLE_PAGES)
        return "a page that is written and then forgotten no longer counts as written";
    for (size_t i = 0; i < TABLE_PAGES; i++)
        if (pages[i * PAGE] != (uint8_t)(i + 1))
            return "a forgotten page has lost its content";
    return NULL;
}

/* Runs `use` on memory of our own that is registered as guest RAM is. Returns NULL, or what is missing here. */
static const char *on_tracked_memory(const char *(*use)(int, volatile uint8_t *, double *),
                                     double *result)
{
    struct uffd uffd = {.fd = -1};
    struct uffd_failure failure = {0};
    const char *failed = "shared memory";
    int memory = memfd_create("subpage-probe", MFD_CLOEXEC);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint8_t *room = MAP_FAILED;
    if (memory >= 0 && pagemap >= 0 && ftruncate(memory, PROBE_BYTES) == 0)
        room = mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (room != MAP_FAILED && uffd_open(&uffd, &failure)) {
        size_t table_bytes = TABLE_PAGES * PAGE;
        uint8_t *pages = (uint8_t *)(((uintptr_t)room + table_bytes - 1) / table_bytes * table_bytes);
        madvise(room, PROBE_BYTES, MADV_NOHUGEPAGE);
        failed = uffd_register(&uffd, pages, table_bytes, &failure) ? use(pagemap, pages, result) : failure.step;
    } else if (failure.step) {
        failed = failure.step;
    }
    if (uffd.fd >= 0)
        close(uffd.fd);
    if (room != MAP_FAILED)
        munmap(room, PROBE_BYTES);
    if (pagemap >= 0)
        close(pagemap);
    if (memory >= 0)
        close(memory);
    return failed;
}

/* forgetProbe() -> '' when accesses can be forgotten here without harm to write tracking, else the reason. */
static napi_value forget_probe(napi_env env, napi_callback_info info)
{
    (void)info;
    napi_value result;
    const char *failed = on_tracked_memory(probe, NULL);
    napi_create_string_utf8(env, failed ? failed : "", NAPI_AUTO_LENGTH, &result);
    return result;
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

enum { TIMED_ROUNDS = 7 };

/* Puts a time among the sorted ones before it. */
static void note_time(double *sorted, int count, double ns)
{
    int at = count;
    for (; at > 0 && sorted[at - 1] > ns; at--)
        sorted[at] = sorted[at - 1];
    sorted[at] = ns;
}

/* First writes to pages whose write marks were taken away, less what writes cost that meet no protection. */
static const char *time_write_faults(int pagemap, volatile uint8_t *pages, double *result)
{
    double first[TIMED_ROUNDS], again[TIMED_ROUNDS];
    for (size_t i = 0; i < TABLE_PAGES; i++)
        pages[i * PAGE] = 1;
    for (int round = 0; round < TIMED_ROUNDS; round++) {
        if (count_pages(pagemap, (uintptr_t)pages, TABLE_PAGES, CATEGORY_WRITTEN, true) < 0)
            return "PAGEMAP_SCAN";
        double started = now_ns();
        for (size_t i = 0; i < TABLE_PAGES; i++)
            pages[i * PAGE]++;
        double between = now_ns();
        for (size_t i = 0; i < TABLE_PAGES; i++)
            pages[i * PAGE]++;
        note_time(first, round, (between - started) / TABLE_PAGES);
        note_time(again, round, (now_ns() - between) / TABLE_PAGES);
    }
    *result = first[TIMED_ROUNDS / 2] - again[TIMED_ROUNDS / 2];
    return NULL;
}

/* Reads of pages that were forgotten. */
static const char *time_faults(int pagemap, volatile uint8_t *pages, double *result)
{
    double took[TIMED_ROUNDS];
    (void)pagemap;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < TABLE_PAGES; i++)
        pages[i * PAGE] = 1;
    for (int round = 0; round < TIMED_ROUNDS; round++) {
        drop(pages, TABLE_PAGES);
        double started = now_ns();
        for (size_t i = 0; i < TABLE_PAGES; i++)
            sum += pages[i * PAGE];
        note_time(took, round, (now_ns() - started) / TABLE_PAGES);
    }
    *result = took[TIMED_ROUNDS / 2];
    return NULL;
}

static napi_value timed(napi_env env, const char *(*use)(int, volatile uint8_t *, double *))
{
    napi_value result;
    double ns = 0;
    if (on_tracked_memory(use, &ns))
        ns = 0;
    return napi_create_double(env, ns, &result) == napi_ok ? result : NULL;
}

/* forgetFaultNs() -> nanoseconds that reading a forgotten page costs on this host, 0 when it cannot be tried. */
static napi_value forget_fault_ns(napi_env env, napi_callback_info info)
{
    (void)info;
    return timed(env, time_faults);
}

/* writeFaultNs() -> nanoseconds that the first write to a tracked page costs on this host, 0 when it cannot be tried. */
static napi_value write_fault_ns(napi_env env, napi_callback_info info)
{
    (void)info;
    return timed(env, time_write_faults);
}

void subpage_register_forget(napi_env env, napi_value exports)
{
    napi_value value;
    napi_create_uint32(env, FORGET_FILE_BYTES, &value);
    napi_set_named_property(env, exports, "forgetFileBytes", value);
    napi_create_uint32(env, FORGET_RUN_COUNT_MAX, &value);
    napi_set_named_property(env, exports, "forgetRunCountMax", value);
    export_function(env, exports, "forgetOpen", forget_open);
    export_function(env, exports, "forgetPost", forget_post);
    export_function(env, exports, "forgetStatus", forget_status);
    export_function(env, exports, "forgetClose", forget_close);
    export_function(env, exports, "forgetProbe", forget_probe);
    export_function(env, exports, "forgetFaultNs", forget_fault_ns);
    export_function(env, exports, "writeFaultNs", write_fault_ns);
}
