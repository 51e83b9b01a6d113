/* The pagers of a store (native/core/pager.h): they serve the page faults of its guests. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../core/invariant.h"
#include "store_handle.h"

enum { SYS_PIDFD_GETFD = 438 };

static bool get_mappings(napi_env env, napi_value value, napi_value count, struct pager_mapping *mappings,
                         uint64_t *mapping_count)
{
    double *fields;
    if (!subpage_get_uint(env, count, PAGER_MAPPINGS_MAX, "mappings", mapping_count) ||
        !subpage_get_results(env, value, 3 * (size_t)*mapping_count, &fields))
        return false;
    for (uint64_t i = 0; i < *mapping_count; i++, fields += 3) {
        for (unsigned field = 0; field < 3; field++)
            if (!(fields[field] >= 0 && fields[field] <= 9007199254740991.0)) {
                napi_throw_type_error(env, NULL, "a mapping is address, bytes and first page");
                return false;
            }
        mappings[i] = (struct pager_mapping){(uint64_t)fields[0], (uint64_t)fields[1], (uint64_t)fields[2]};
    }
    return true;
}

/*
 * pagerStart(store, guest, pidfd, uffd, mappings, count): serves the faults of a process whose descriptor `uffd` is the
 * userfaultfd. Mappings: address, bytes, first page. The pidfd stays the caller's. Throws with the name of the errno.
 */
static napi_value pager_start_call(napi_env env, napi_callback_info info)
{
    napi_value args[6];
    struct store_handle *handle;
    struct pager_mapping mappings[PAGER_MAPPINGS_MAX];
    uint64_t pidfd, remote, count;
    int guest;
    if (!subpage_args(env, info, 6, args) || !(handle = store_handle_get(env, args[0])) || !store_get_guest(env, args[1], &guest) ||
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
    struct store_handle *handle;
    bool serving;
    int guest, error = ENOENT;
    if (!subpage_args(env, info, 3, args) || !(handle = store_handle_get(env, args[0])) || !store_get_guest(env, args[1], &guest) ||
        !subpage_get_bool(env, args[2], "serving", &serving))
        return NULL;
    if (handle->pagers[guest])
        error = pager_stop(handle->pagers[guest], serving);
    if (error == 0)
        handle->pagers[guest] = NULL;
    return store_number(env, error);
}

/* pagerRead(store, guest, results) → false without a pager; served by kind, zeros, retries, errno, ended, then times twice */
static napi_value pager_read_call(napi_env env, napi_callback_info info)
{
    enum { HEAD = PAGER_KINDS + 4, TIMES = PAGER_KINDS * PAGER_BUCKETS, RESULTS = HEAD + 2 * TIMES };
    napi_value args[3], there;
    struct store_handle *handle;
    double *results;
    int guest;
    if (!subpage_args(env, info, 3, args) || !(handle = store_handle_get(env, args[0])) || !store_get_guest(env, args[1], &guest) ||
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
    SP_INVARIANT(count <= work->page_count);
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
    if ((work->handle = store_handle_get(env, args[0])) && store_get_guest(env, args[1], &work->guest) &&
        subpage_get_uint(env, args[2], INT32_MAX, "ramFd", &work->ram_fd) &&
        subpage_get_u32s(env, args[3], "pages", &work->page_numbers, &work->page_count) &&
        subpage_get_results(env, args[4], 1 + 4 * work->page_count, &work->results))
        return store_job_start(env, work, args, ARGS, "subpage:accesses");
    subpage_job_drop(&work->job);
    return NULL;
}

void subpage_register_pager(napi_env env, napi_value exports)
{
    export_function(env, exports, "pagerStart", pager_start_call);
    export_function(env, exports, "pagerStop", pager_stop_call);
    export_function(env, exports, "pagerRead", pager_read_call);
    export_function(env, exports, "pagerTimeAccesses", time_accesses_call);
}
