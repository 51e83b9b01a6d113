/*
 * The content store (native/core/store.h) and its pagers behind one handle. What walks over many pages runs in the thread
 * pool; the store locks itself. Closing waits for what runs, ends the pagers (their guests wait for the next process that
 * serves them) and only then lets go of the store. The memory of its books is told to the garbage collector.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../core/pager.h"
#include "addon.h"

static const napi_type_tag store_tag = {0x91c3f06e5ad84b27, 0xbe0417d2a86c395f};

enum { PATH_ROOM = 4096, NAME_ROOM = 64, GUESTS_ROOM = 1024, SYS_PIDFD_GETFD = 438 };

struct handle {
    struct sp_store *store; /* NULL once closed */
    struct sp_pager *pagers[GUESTS_ROOM];
    unsigned users;
    bool closed;
    int64_t told_bytes;
};

static void release(napi_env env, struct handle *handle)
{
    int64_t now;
    for (unsigned i = 0; i < GUESTS_ROOM; i++)
        if (handle->pagers[i])
            (void)pager_stop(handle->pagers[i], true);
    memset(handle->pagers, 0, sizeof handle->pagers);
    if (handle->store)
        store_close(handle->store);
    handle->store = NULL;
    napi_adjust_external_memory(env, -handle->told_bytes, &now);
    handle->told_bytes = 0;
}

static void finalize(napi_env env, void *data, void *hint)
{
    (void)hint;
    release(env, data);
    free(data);
}

static void tell_memory(napi_env env, struct handle *handle)
{
    struct store_totals totals;
    int64_t now;
    store_totals(handle->store, &totals);
    napi_adjust_external_memory(env, (int64_t)totals.book_bytes - handle->told_bytes, &now);
    handle->told_bytes = (int64_t)totals.book_bytes;
}

static struct handle *unwrap(napi_env env, napi_value value)
{
    bool ours = false;
    void *handle = NULL;
    if (napi_check_object_type_tag(env, value, &store_tag, &ours) == napi_ok && ours &&
        napi_unwrap(env, value, &handle) == napi_ok)
        return handle;
    napi_throw_type_error(env, NULL, "not a store");
    return NULL;
}

static struct handle *get(napi_env env, napi_value value)
{
    struct handle *handle = unwrap(env, value);
    if (handle && handle->closed) {
        napi_throw_type_error(env, NULL, "the store is closed");
        return NULL;
    }
    return handle;
}

static bool get_text(napi_env env, napi_value value, const char *what, char *text, size_t room)
{
    size_t length;
    if (napi_get_value_string_utf8(env, value, text, room, &length) == napi_ok && length < room - 1)
        return true;
    napi_throw_type_error(env, NULL, what);
    return false;
}

static napi_value number(napi_env env, double value)
{
    napi_value result;
    return napi_create_double(env, value, &result) == napi_ok ? result : NULL;
}

/* storeOpen(directory, swap, pagesMax, indexPages, shape) → handle; swap "": none. Throws with the name of the errno. */
static napi_value open_call(napi_env env, napi_callback_info info)
{
    napi_value args[5], object;
    char directory[PATH_ROOM], swap[PATH_ROOM];
    struct sp_store_options options = {.directory = directory};
    if (!subpage_args(env, info, 5, args) || !get_text(env, args[0], "directory", directory, sizeof directory) ||
        !get_text(env, args[1], "swap", swap, sizeof swap) ||
        !subpage_get_uint(env, args[2], UINT32_MAX - 1, "pagesMax", &options.pages_max) ||
        !subpage_get_uint(env, args[3], UINT32_MAX, "indexPages", &options.index_pages) ||
        !subpage_get_shape(env, args[4], &options.shape))
        return NULL;
    options.swap = *swap ? swap : NULL;
    struct handle *handle = calloc(1, sizeof *handle);
    if (!handle || !(handle->store = store_open(&options))) {
        free(handle);
        return throw_errno(env, directory);
    }
    if (napi_create_object(env, &object) != napi_ok ||
        napi_wrap(env, object, handle, finalize, NULL, NULL) != napi_ok) {
        release(env, handle);
        free(handle);
        return NULL;
    }
    tell_memory(env, handle);
    return napi_type_tag_object(env, object, &store_tag) == napi_ok ? object : NULL;
}

/* storeAttach(store, name, ramPath, domain) → number of the guest */
static napi_value attach_call(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    char name[NAME_ROOM], path[PATH_ROOM];
    uint64_t domain;
    struct handle *handle;
    if (!subpage_args(env, info, 4, args) || !(handle = get(env, args[0])) ||
        !get_text(env, args[1], "name", name, sizeof name) || !get_text(env, args[2], "ramPath", path, sizeof path) ||
        !subpage_get_uint(env, args[3], UINT16_MAX, "domain", &domain))
        return NULL;
    int guest = store_attach(handle->store, name, path, (uint16_t)domain);
    if (guest < 0)
        return throw_errno(env, name);
    tell_memory(env, handle);
    return number(env, guest);
}

/* storeForget(store, name) → errno */
static napi_value forget_call(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    char name[NAME_ROOM];
    struct handle *handle;
    if (!subpage_args(env, info, 2, args) || !(handle = get(env, args[0])) ||
        !get_text(env, args[1], "name", name, sizeof name))
        return NULL;
    return number(env, store_forget(handle->store, name));
}

/* ---- what runs in the thread pool */

struct store_job {
    struct subpage_job job;
    struct handle *handle;
    int guest;
    const struct sp_run *runs;
    size_t run_count;
    uint64_t pages_max, flags, age_pack, age_swap, ram_fd;
    uint32_t *page_numbers;
    size_t page_count;
    uint8_t *into;
    double *results;
    int error;
};

static napi_value finish(napi_env env, struct subpage_job *job)
{
    struct store_job *work = (struct store_job *)job;
    struct handle *handle = work->handle;
    if (--handle->users == 0 && handle->closed)
        release(env, handle);
    return number(env, work->error);
}

static void evict_execute(struct subpage_job *job)
{
    struct store_job *work = (struct store_job *)job;
    struct store_tally tally = {0};
    work->error = store_evict(work->handle->store, work->guest, work->runs, work->run_count, (unsigned)work->flags,
                              work->pages_max, &tally);
    const uint64_t counts[] = {tally.filled, tally.shared, tally.patched, tally.whole,
                               tally.holes,  tally.failed, tally.left};
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++)
        work->results[i] = (double)counts[i];
}

static void fetch_execute(struct subpage_job *job)
{
    struct store_job *work = (struct store_job *)job;
    uint64_t moved = 0;
    work->error = store_fetch(work->handle->store, work->guest, work->runs, work->run_count, (unsigned)work->flags,
                              &moved);
    work->results[0] = (double)moved;
}

static void hash_execute(struct subpage_job *job)
{
    struct store_job *work = (struct store_job *)job;
    work->error = store_hash(work->handle->store, work->guest, work->runs, work->run_count, work->into);
}

static void sweep_execute(struct subpage_job *job)
{
    struct store_job *work = (struct store_job *)job;
    struct store_swept swept;
    work->error = store_sweep(work->handle->store, work->pages_max, (unsigned)work->age_pack,
                              (unsigned)work->age_swap, &swept);
    work->results[0] = (double)swept.seen;
    work->results[1] = (double)swept.packed;
    work->results[2] = (double)swept.swapped;
    work->results[3] = swept.wrapped;
    work->results[4] = (double)swept.joined;
}

static napi_value start(napi_env env, struct store_job *work, napi_value *args, size_t count, const char *name)
{
    struct handle *handle = work->handle;
    work->job.finish = finish;
    handle->users++;
    napi_value promise = subpage_job_start(env, &work->job, args, count, name);
    if (!promise)
        handle->users--;
    return promise;
}

static bool get_guest(napi_env env, napi_value value, int *guest)
{
    uint64_t read;
    if (!subpage_get_uint(env, value, GUESTS_ROOM - 1, "guest", &read))
        return false;
    *guest = (int)read;
    return true;
}

/* storeEvict(store, guest, pairs, runs, flags, pagesMax, results) → errno; results: the tally, in its order */
static napi_value evict_call(napi_env env, napi_callback_info info)
{
    enum { ARGS = 7, RESULTS = 7 };
    napi_value args[ARGS];
    struct store_job *work;
    if (!subpage_args(env, info, ARGS, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    work->job.execute = evict_execute;
    if ((work->handle = get(env, args[0])) && get_guest(env, args[1], &work->guest) &&
        subpage_get_runs(env, args[2], args[3], &work->runs, &work->run_count) &&
        subpage_get_uint(env, args[4], UINT32_MAX, "flags", &work->flags) &&
        subpage_get_uint(env, args[5], UINT32_MAX, "pagesMax", &work->pages_max) &&
        subpage_get_results(env, args[6], RESULTS, &work->results))
        return start(env, work, args, ARGS, "subpage:evict");
    subpage_job_drop(&work->job);
    return NULL;
}

/* storeFetch(store, guest, pairs, runs, flags, results) → errno; results: pages moved */
static napi_value fetch_call(napi_env env, napi_callback_info info)
{
    enum { ARGS = 6 };
    napi_value args[ARGS];
    struct store_job *work;
    if (!subpage_args(env, info, ARGS, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    work->job.execute = fetch_execute;
    if ((work->handle = get(env, args[0])) && get_guest(env, args[1], &work->guest) &&
        subpage_get_runs(env, args[2], args[3], &work->runs, &work->run_count) &&
        subpage_get_uint(env, args[4], FETCH_ROOM | FETCH_URGENT, "flags", &work->flags) &&
        subpage_get_results(env, args[5], 1, &work->results))
        return start(env, work, args, ARGS, "subpage:fetch");
    subpage_job_drop(&work->job);
    return NULL;
}

/* storeHash(store, guest, pairs, runs, into) → errno; `into` has 16 bytes for each page */
static napi_value hash_call(napi_env env, napi_callback_info info)
{
    enum { ARGS = 5 };
    napi_value args[ARGS];
    struct store_job *work;
    size_t room;
    if (!subpage_args(env, info, ARGS, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    work->job.execute = hash_execute;
    if ((work->handle = get(env, args[0])) && get_guest(env, args[1], &work->guest) &&
        subpage_get_runs(env, args[2], args[3], &work->runs, &work->run_count) &&
        subpage_get_bytes(env, args[4], "into", &work->into, &room)) {
        uint64_t pages = 0;
        for (size_t i = 0; i < work->run_count; i++)
            pages += work->runs[i].count;
        if (room / 16 >= pages)
            return start(env, work, args, ARGS, "subpage:storeHash");
        napi_throw_type_error(env, NULL, "into has no room for the hashes");
    }
    subpage_job_drop(&work->job);
    return NULL;
}

/* storeSweep(store, objectsMax, agePack, ageSwap, results) → errno; results: seen, packed, swapped, wrapped, joined */
static napi_value sweep_call(napi_env env, napi_callback_info info)
{
    enum { ARGS = 5 };
    napi_value args[ARGS];
    struct store_job *work;
    if (!subpage_args(env, info, ARGS, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    work->job.execute = sweep_execute;
    if ((work->handle = get(env, args[0])) &&
        subpage_get_uint(env, args[1], UINT32_MAX, "objectsMax", &work->pages_max) &&
        subpage_get_uint(env, args[2], UINT32_MAX, "agePack", &work->age_pack) &&
        subpage_get_uint(env, args[3], UINT32_MAX, "ageSwap", &work->age_swap) &&
        subpage_get_results(env, args[4], 5, &work->results))
        return start(env, work, args, ARGS, "subpage:sweep");
    subpage_job_drop(&work->job);
    return NULL;
}

/* ---- at once */

/* storeDrop(store, guest, pairs, runs) → errno */
static napi_value drop_call(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    struct handle *handle;
    const struct sp_run *runs;
    size_t run_count;
    int guest;
    if (!subpage_args(env, info, 4, args) || !(handle = get(env, args[0])) || !get_guest(env, args[1], &guest) ||
        !subpage_get_runs(env, args[2], args[3], &runs, &run_count))
        return NULL;
    return number(env, store_drop(handle->store, guest, runs, run_count));
}

/* storeRead(store, guest, page, into) → errno; `into` has 4096 bytes */
static napi_value read_call(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    struct handle *handle;
    uint64_t page;
    uint8_t *into;
    size_t bytes;
    int guest;
    if (!subpage_args(env, info, 4, args) || !(handle = get(env, args[0])) || !get_guest(env, args[1], &guest) ||
        !subpage_get_uint(env, args[2], UINT32_MAX, "page", &page) ||
        !subpage_get_bytes(env, args[3], "into", &into, &bytes))
        return NULL;
    if (bytes != SP_PAGE_BYTES) {
        napi_throw_type_error(env, NULL, "into must have 4096 bytes");
        return NULL;
    }
    return number(env, store_read(handle->store, guest, page, into));
}

/* storeMap(store, guest, into) → errno; a bit for each page that is in the store */
static napi_value map_call(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    struct handle *handle;
    uint8_t *into;
    size_t bytes;
    int guest;
    if (!subpage_args(env, info, 3, args) || !(handle = get(env, args[0])) || !get_guest(env, args[1], &guest) ||
        !subpage_get_bytes(env, args[2], "into", &into, &bytes))
        return NULL;
    return number(env, store_map(handle->store, guest, into, bytes));
}

/* storeShare(store, guest, results) → errno; results: struct store_share, in its order */
static napi_value share_call(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    struct handle *handle;
    struct store_share share;
    double *results;
    int guest;
    if (!subpage_args(env, info, 3, args) || !(handle = get(env, args[0])) || !get_guest(env, args[1], &guest) ||
        !subpage_get_results(env, args[2], 10, &results))
        return NULL;
    int error = store_share_of(handle->store, guest, &share);
    const uint64_t counts[] = {share.pages,   share.resident, share.holes,   share.filled, share.shared,
                               share.patched, share.packed,   share.swapped, share.whole,  share.bytes};
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++)
        results[i] = (double)counts[i];
    return number(env, error);
}

/* storeTotals(store, results): objects, poolBytes, swapBytes, bookBytes */
static napi_value totals_call(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    struct handle *handle;
    struct store_totals totals;
    double *results;
    if (!subpage_args(env, info, 2, args) || !(handle = get(env, args[0])) ||
        !subpage_get_results(env, args[1], 4, &results))
        return NULL;
    store_totals(handle->store, &totals);
    results[0] = (double)totals.objects;
    results[1] = (double)totals.pool_bytes;
    results[2] = (double)totals.swap_bytes;
    results[3] = (double)totals.book_bytes;
    tell_memory(env, handle);
    return NULL;
}

/* storeClose(store): idempotent; deferred while something runs */
static napi_value close_call(napi_env env, napi_callback_info info)
{
    napi_value args[1];
    struct handle *handle;
    if (subpage_args(env, info, 1, args) && (handle = unwrap(env, args[0])) && !handle->closed) {
        handle->closed = true;
        if (handle->users == 0)
            release(env, handle);
    }
    return NULL;
}

/* ---- pagers */

static bool get_mappings(napi_env env, napi_value value, napi_value count, struct pager_mapping *mappings,
                         uint64_t *mapping_count)
{
    double *fields;
    if (!subpage_get_uint(env, count, PAGER_MAPPINGS_MAX, "mappings", mapping_count) ||
        !subpage_get_results(env, value, 3 * (size_t)*mapping_count, &fields))
        return false;
    for (uint64_t i = 0; i < *mapping_count; i++, fields += 3)
        mappings[i] = (struct pager_mapping){(uint64_t)fields[0], (uint64_t)fields[1], (uint64_t)fields[2]};
    return true;
}

/*
 * pagerStart(store, guest, pidfd, uffd, mappings, count): serves the faults of a process whose descriptor `uffd` is the
 * userfaultfd. Mappings: address, bytes, first page. The pidfd stays the caller's. Throws with the name of the errno.
 */
static napi_value pager_start_call(napi_env env, napi_callback_info info)
{
    napi_value args[6];
    struct handle *handle;
    struct pager_mapping mappings[PAGER_MAPPINGS_MAX];
    uint64_t pidfd, remote, count;
    int guest;
    if (!subpage_args(env, info, 6, args) || !(handle = get(env, args[0])) || !get_guest(env, args[1], &guest) ||
        !subpage_get_uint(env, args[2], INT32_MAX, "pidfd", &pidfd) ||
        !subpage_get_uint(env, args[3], INT32_MAX, "uffd", &remote) ||
        !get_mappings(env, args[4], args[5], mappings, &count))
        return NULL;
    if (handle->pagers[guest]) {
        errno = EEXIST;
        return throw_errno(env, "pagerStart");
    }
    int uffd = (int)syscall(SYS_PIDFD_GETFD, (int)pidfd, (int)remote, 0);
    if (uffd < 0)
        return throw_errno(env, "pidfd_getfd");
    handle->pagers[guest] = pager_start(handle->store, guest, uffd, (int)pidfd, mappings, (size_t)count);
    return handle->pagers[guest] ? NULL : throw_errno(env, "cannot serve page faults");
}

/* pagerStop(store, guest, serving) → errno; EBUSY while pages are in the store and nobody would serve them */
static napi_value pager_stop_call(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    struct handle *handle;
    bool serving;
    int guest, error = ENOENT;
    if (!subpage_args(env, info, 3, args) || !(handle = get(env, args[0])) || !get_guest(env, args[1], &guest) ||
        !subpage_get_bool(env, args[2], "serving", &serving))
        return NULL;
    if (handle->pagers[guest])
        error = pager_stop(handle->pagers[guest], serving);
    if (error == 0)
        handle->pagers[guest] = NULL;
    return number(env, error);
}

/* pagerRead(store, guest, results) → false without a pager; served by kind, zeros, retries, errno, ended, then times twice */
static napi_value pager_read_call(napi_env env, napi_callback_info info)
{
    enum { HEAD = PAGER_KINDS + 4, TIMES = PAGER_KINDS * PAGER_BUCKETS, RESULTS = HEAD + 2 * TIMES };
    napi_value args[3], there;
    struct handle *handle;
    double *results;
    int guest;
    if (!subpage_args(env, info, 3, args) || !(handle = get(env, args[0])) || !get_guest(env, args[1], &guest) ||
        !subpage_get_results(env, args[2], RESULTS, &results))
        return NULL;
    struct pager_stats *stats = handle->pagers[guest] ? malloc(sizeof *stats) : NULL;
    if (stats) {
        pager_read(handle->pagers[guest], stats);
        for (unsigned kind = 0; kind < PAGER_KINDS; kind++)
            results[kind] = (double)stats->served[kind];
        results[PAGER_KINDS] = (double)stats->zeros;
        results[PAGER_KINDS + 1] = (double)stats->retries;
        results[PAGER_KINDS + 2] = stats->error;
        results[PAGER_KINDS + 3] = stats->ended;
        for (unsigned i = 0; i < TIMES; i++) {
            results[HEAD + i] = (double)stats->times[i / PAGER_BUCKETS][i % PAGER_BUCKETS];
            results[HEAD + TIMES + i] = (double)stats->rebuild_times[i / PAGER_BUCKETS][i % PAGER_BUCKETS];
        }
    }
    napi_get_boolean(env, stats != NULL, &there);
    free(stats);
    return there;
}

static void times_execute(struct subpage_job *job)
{
    struct store_job *work = (struct store_job *)job;
    struct access_time *times = malloc(work->page_count * sizeof *times + 1);
    size_t count = work->page_count;
    work->error = times ? pager_time_accesses(work->handle->store, work->guest, (int)work->ram_fd, work->page_numbers,
                                              &count, times)
                        : ENOMEM;
    for (size_t i = 0; !work->error && i < count; i++) {
        work->results[1 + 4 * i] = times[i].kind;
        work->results[2 + 4 * i] = (double)times[i].access_ns;
        work->results[3 + 4 * i] = (double)times[i].answer_ns;
        work->results[4 + 4 * i] = (double)times[i].rebuild_ns;
    }
    work->results[0] = work->error ? 0 : (double)count;
    free(times);
}

/*
 * pagerTimeAccesses(store, guest, ramFd, pages, results) → errno; results: how many, then kind, access, answer and rebuild of
 * each (pager.h), in nanoseconds
 */
static napi_value time_accesses_call(napi_env env, napi_callback_info info)
{
    enum { ARGS = 5 };
    napi_value args[ARGS];
    struct store_job *work;
    if (!subpage_args(env, info, ARGS, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    work->job.execute = times_execute;
    if ((work->handle = get(env, args[0])) && get_guest(env, args[1], &work->guest) &&
        subpage_get_uint(env, args[2], INT32_MAX, "ramFd", &work->ram_fd) &&
        subpage_get_u32s(env, args[3], "pages", &work->page_numbers, &work->page_count) &&
        subpage_get_results(env, args[4], 1 + 4 * work->page_count, &work->results))
        return start(env, work, args, ARGS, "subpage:accesses");
    subpage_job_drop(&work->job);
    return NULL;
}

void subpage_register_store(napi_env env, napi_value exports)
{
    export_function(env, exports, "storeOpen", open_call);
    export_function(env, exports, "storeAttach", attach_call);
    export_function(env, exports, "storeForget", forget_call);
    export_function(env, exports, "storeEvict", evict_call);
    export_function(env, exports, "storeFetch", fetch_call);
    export_function(env, exports, "storeHash", hash_call);
    export_function(env, exports, "storeSweep", sweep_call);
    export_function(env, exports, "storeDrop", drop_call);
    export_function(env, exports, "storeRead", read_call);
    export_function(env, exports, "storeMap", map_call);
    export_function(env, exports, "storeShare", share_call);
    export_function(env, exports, "storeTotals", totals_call);
    export_function(env, exports, "storeClose", close_call);
    export_function(env, exports, "pagerStart", pager_start_call);
    export_function(env, exports, "pagerStop", pager_stop_call);
    export_function(env, exports, "pagerRead", pager_read_call);
    export_function(env, exports, "pagerTimeAccesses", time_accesses_call);
}
