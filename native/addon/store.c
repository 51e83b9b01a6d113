/* The content store (native/core/store.h). Functions that return an errno throw for wrong arguments only. */
#include "store_handle.h"

enum { PATH_ROOM = 4096, NAME_ROOM = 64 };

static bool get_text(napi_env env, napi_value value, const char *what, char *text, size_t room)
{
    size_t length;
    if (napi_get_value_string_utf8(env, value, text, room, &length) == napi_ok && length < room - 1)
        return true;
    napi_throw_type_error(env, NULL, what);
    return false;
}

/* storeOpen(directory, swap, pagesMax, indexPages, shape) → handle; swap "": none. Throws with the name of the errno. */
static napi_value open_call(napi_env env, napi_callback_info info)
{
    napi_value args[5];
    char directory[PATH_ROOM], swap[PATH_ROOM];
    struct sp_store_options options = {.directory = directory};
    if (!subpage_args(env, info, 5, args) || !get_text(env, args[0], "directory", directory, sizeof directory) ||
        !get_text(env, args[1], "swap", swap, sizeof swap) ||
        !subpage_get_uint(env, args[2], UINT32_MAX - 1, "pagesMax", &options.pages_max) ||
        !subpage_get_uint(env, args[3], UINT32_MAX, "indexPages", &options.index_pages) ||
        !subpage_get_shape(env, args[4], &options.shape))
        return NULL;
    options.swap = *swap ? swap : NULL;
    struct sp_store *store = store_open(&options);
    return store ? store_handle_wrap(env, store) : throw_errno(env, directory);
}

/* storeAttach(store, name, ramPath, domain) → number of the guest */
static napi_value attach_call(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    char name[NAME_ROOM], path[PATH_ROOM];
    uint64_t domain;
    struct store_handle *handle;
    if (!subpage_args(env, info, 4, args) || !(handle = store_handle_get(env, args[0])) ||
        !get_text(env, args[1], "name", name, sizeof name) || !get_text(env, args[2], "ramPath", path, sizeof path) ||
        !subpage_get_uint(env, args[3], UINT16_MAX, "domain", &domain))
        return NULL;
    int guest = store_attach(handle->store, name, path, (uint16_t)domain);
    if (guest < 0)
        return throw_errno(env, name);
    store_handle_tell_memory(env, handle);
    return store_number(env, guest);
}

/* ---- what runs in the thread pool */

static void forget_execute(struct subpage_job *job)
{
    struct store_job *work = (struct store_job *)job;
    work->error = store_forget(work->handle->store, work->name);
}

/* storeForget(store, name) → errno */
static napi_value forget_call(napi_env env, napi_callback_info info)
{
    enum { ARGS = 2 };
    napi_value args[ARGS];
    struct store_job *work;
    if (!subpage_args(env, info, ARGS, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    work->job.execute = forget_execute;
    if ((work->handle = store_handle_get(env, args[0])) &&
        get_text(env, args[1], "name", work->name, sizeof work->name))
        return store_job_start(env, work, args, ARGS, "subpage:forget");
    subpage_job_drop(&work->job);
    return NULL;
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

/* storeEvict(store, guest, pairs, runs, flags, pagesMax, results) → errno; results: the tally, in its order */
static napi_value evict_call(napi_env env, napi_callback_info info)
{
    enum { ARGS = 7, RESULTS = 7 };
    napi_value args[ARGS];
    struct store_job *work;
    if (!subpage_args(env, info, ARGS, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    work->job.execute = evict_execute;
    if ((work->handle = store_handle_get(env, args[0])) && store_get_guest(env, args[1], &work->guest) &&
        subpage_get_runs(env, args[2], args[3], &work->runs, &work->run_count) &&
        subpage_get_uint(env, args[4], UINT32_MAX, "flags", &work->flags) &&
        subpage_get_uint(env, args[5], UINT32_MAX, "pagesMax", &work->pages_max) &&
        subpage_get_results(env, args[6], RESULTS, &work->results))
        return store_job_start(env, work, args, ARGS, "subpage:evict");
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
    if ((work->handle = store_handle_get(env, args[0])) && store_get_guest(env, args[1], &work->guest) &&
        subpage_get_runs(env, args[2], args[3], &work->runs, &work->run_count) &&
        subpage_get_uint(env, args[4], FETCH_ROOM | FETCH_URGENT, "flags", &work->flags) &&
        subpage_get_results(env, args[5], 1, &work->results))
        return store_job_start(env, work, args, ARGS, "subpage:fetch");
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
    if ((work->handle = store_handle_get(env, args[0])) && store_get_guest(env, args[1], &work->guest) &&
        subpage_get_runs(env, args[2], args[3], &work->runs, &work->run_count) &&
        subpage_get_bytes(env, args[4], "into", &work->into, &room)) {
        uint64_t pages = 0;
        for (size_t i = 0; i < work->run_count; i++)
            pages += work->runs[i].count;
        if (room / 16 >= pages)
            return store_job_start(env, work, args, ARGS, "subpage:storeHash");
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
    if ((work->handle = store_handle_get(env, args[0])) &&
        subpage_get_uint(env, args[1], UINT32_MAX, "objectsMax", &work->pages_max) &&
        subpage_get_uint(env, args[2], UINT32_MAX, "agePack", &work->age_pack) &&
        subpage_get_uint(env, args[3], UINT32_MAX, "ageSwap", &work->age_swap) &&
        subpage_get_results(env, args[4], 5, &work->results))
        return store_job_start(env, work, args, ARGS, "subpage:sweep");
    subpage_job_drop(&work->job);
    return NULL;
}

/* ---- at once */

/* storeDrop(store, guest, pairs, runs) → errno */
static napi_value drop_call(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    struct store_handle *handle;
    const struct sp_run *runs;
    size_t run_count;
    int guest;
    if (!subpage_args(env, info, 4, args) || !(handle = store_handle_get(env, args[0])) || !store_get_guest(env, args[1], &guest) ||
        !subpage_get_runs(env, args[2], args[3], &runs, &run_count))
        return NULL;
    return store_number(env, store_drop(handle->store, guest, runs, run_count));
}

/* storeRead(store, guest, page, into) → errno; `into` has 4096 bytes */
static napi_value read_call(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    struct store_handle *handle;
    uint64_t page;
    uint8_t *into;
    size_t bytes;
    int guest;
    if (!subpage_args(env, info, 4, args) || !(handle = store_handle_get(env, args[0])) || !store_get_guest(env, args[1], &guest) ||
        !subpage_get_uint(env, args[2], UINT32_MAX, "page", &page) ||
        !subpage_get_bytes(env, args[3], "into", &into, &bytes))
        return NULL;
    if (bytes != SP_PAGE_BYTES) {
        napi_throw_type_error(env, NULL, "into must have 4096 bytes");
        return NULL;
    }
    return store_number(env, store_read(handle->store, guest, page, into));
}

/* storeKinds(store, guest, into) → errno; how each page is held: enum page_kind */
static napi_value kinds_call(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    struct store_handle *handle;
    uint8_t *into;
    size_t bytes;
    int guest;
    if (!subpage_args(env, info, 3, args) || !(handle = store_handle_get(env, args[0])) || !store_get_guest(env, args[1], &guest) ||
        !subpage_get_bytes(env, args[2], "into", &into, &bytes))
        return NULL;
    return store_number(env, store_kinds(handle->store, guest, into, bytes));
}

/* storeShare(store, guest, results) → errno; results: struct store_share, in its order */
static napi_value share_call(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    struct store_handle *handle;
    struct store_share share;
    double *results;
    int guest;
    if (!subpage_args(env, info, 3, args) || !(handle = store_handle_get(env, args[0])) || !store_get_guest(env, args[1], &guest) ||
        !subpage_get_results(env, args[2], 10, &results))
        return NULL;
    int error = store_share_of(handle->store, guest, &share);
    const uint64_t counts[] = {share.pages,   share.resident, share.holes,   share.filled, share.shared,
                               share.patched, share.packed,   share.swapped, share.whole,  share.bytes};
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++)
        results[i] = (double)counts[i];
    return store_number(env, error);
}

/* storeMap(store, guest, cellPages, cells) → errno; cells: a row of enum store_held for each */
static napi_value map_call(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    struct store_handle *handle;
    uint64_t cell_pages;
    uint32_t *cells;
    size_t count;
    int guest;
    if (!subpage_args(env, info, 4, args) || !(handle = store_handle_get(env, args[0])) || !store_get_guest(env, args[1], &guest) ||
        !subpage_get_uint(env, args[2], UINT32_MAX, "cellPages", &cell_pages) ||
        !subpage_get_u32s(env, args[3], "cells", &cells, &count))
        return NULL;
    if (count == 0 || count % HELD_WAYS != 0) {
        napi_throw_type_error(env, NULL, "cells must have whole rows");
        return NULL;
    }
    return store_number(env, store_map(handle->store, guest, cell_pages, (uint32_t(*)[HELD_WAYS])cells, count / HELD_WAYS));
}

/* storeTotals(store, results): objects, poolBytes, swapBytes, bookBytes */
static napi_value totals_call(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    struct store_handle *handle;
    struct store_totals totals;
    double *results;
    if (!subpage_args(env, info, 2, args) || !(handle = store_handle_get(env, args[0])) ||
        !subpage_get_results(env, args[1], 4, &results))
        return NULL;
    store_totals(handle->store, &totals);
    results[0] = (double)totals.objects;
    results[1] = (double)totals.pool_bytes;
    results[2] = (double)totals.swap_bytes;
    results[3] = (double)totals.book_bytes;
    store_handle_tell_memory(env, handle);
    return NULL;
}

/* storeClose(store): idempotent; deferred while something runs */
static napi_value close_call(napi_env env, napi_callback_info info)
{
    napi_value args[1];
    if (subpage_args(env, info, 1, args))
        store_handle_close(env, args[0]);
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
    export_function(env, exports, "storeKinds", kinds_call);
    export_function(env, exports, "storeShare", share_call);
    export_function(env, exports, "storeMap", map_call);
    export_function(env, exports, "storeTotals", totals_call);
    export_function(env, exports, "storeClose", close_call);
}
