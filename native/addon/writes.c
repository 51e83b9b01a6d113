/* Writes to disks, reduced and restored by the state of a connection (reduce.c); and what they share with an image. */
#include <stdlib.h>

#include "../core/writes.h"
#include "../disk/records.h"
#include "reduction.h"

/* The core reads heads of records, and does not know of disks. */
_Static_assert((int)SP_WRITE_HEAD_BYTES == (int)RECORD_HEADER_BYTES, "the head of a record has one size");
_Static_assert(RECORD_DATA == 0 && RECORD_ZEROES == 1 && RECORD_KINDS == 2, "the core knows these kinds of records");

enum { REDUCE_RESULTS = 7, RESTORE_RESULTS = 3, REDUCE_ARGS = 6, RESTORE_ARGS = 5, FILL_ARGS = 3 };

struct writes_job {
    struct subpage_job job;
    struct reduction *state;
    const uint8_t *data;
    size_t bytes;
    const uint8_t *memory;
    uint64_t refer, method, image_pages, bytes_max;
    struct sp_writes_stats stats;
    struct sp_vector fills;
    double *results;
    const char *problem;
};

static void reduce_execute(struct subpage_job *job)
{
    struct writes_job *work = (struct writes_job *)job;
    work->problem = sp_reduce_writes(work->state->reducer, work->data, work->bytes, work->memory,
                                     (enum sp_refer)work->refer, (enum sp_squeeze)work->method, &work->state->out,
                                     &work->stats);
}

static void restore_execute(struct subpage_job *job)
{
    struct writes_job *work = (struct writes_job *)job;
    struct sp_vector *out = &work->state->out;
    bool after = false;
    work->problem = sp_restore_writes(work->state->restorer, work->data, work->bytes, work->image_pages,
                                      (size_t)work->bytes_max, out, &work->fills, &after);
    work->results[0] = (double)out->bytes;
    work->results[1] = (double)work->fills.bytes;
    work->results[2] = after;
    if (!work->problem && !sp_vector_put(out, work->fills.data, work->fills.bytes))
        work->problem = "out of memory";
    sp_vector_free(&work->fills);
}

static napi_value finish(napi_env env, struct subpage_job *job)
{
    struct writes_job *work = (struct writes_job *)job;
    struct reduction *state = work->state;
    napi_value text;
    if (state->reducer) {
        const struct sp_reduce_stats *content = &work->stats.content;
        const double values[REDUCE_RESULTS] = {
            (double)state->out.bytes,
            state->out.bytes > 3 ? state->out.data[3] >> SP_REDUCED_METHOD_SHIFT & SP_REDUCED_METHOD_MASK : 0,
            (double)content->lines,
            (double)content->dictionary_lines,
            (double)content->shared_lines,
            (double)work->stats.zero_bytes,
            (double)work->stats.odd_bytes,
        };
        memcpy(work->results, values, sizeof values);
    }
    const char *problem = work->problem;
    subpage_reduction_done(env, state);
    return problem && napi_create_string_utf8(env, problem, NAPI_AUTO_LENGTH, &text) == napi_ok ? text : NULL;
}

static bool reduce_args(napi_env env, napi_value *args, struct writes_job *work)
{
    napi_valuetype type;
    uint8_t *data;
    work->state = subpage_reduction_get(env, args[0], &subpage_reducer_tag);
    if (!work->state || !subpage_get_bytes(env, args[1], "records", &data, &work->bytes) ||
        napi_typeof(env, args[2], &type) != napi_ok ||
        !subpage_get_uint(env, args[3], SP_REFER_AFTER, "refer", &work->refer) ||
        !subpage_get_uint(env, args[4], SP_SQUEEZE_COUNT - 1, "the method", &work->method) ||
        !subpage_get_results(env, args[5], REDUCE_RESULTS, &work->results))
        return false;
    work->data = data;
    if (type != napi_undefined) {
        struct subpage_region *region = subpage_region_get(env, args[2], false);
        if (!region)
            return false;
        if (region->bytes / SP_PAGE_BYTES < sp_reducer_pages(work->state->reducer)) {
            napi_throw_type_error(env, NULL, "the shadow is smaller than the reducer's guest");
            return false;
        }
        work->memory = region->address;
        work->job.regions[0] = region;
    }
    work->job.execute = reduce_execute;
    work->job.finish = finish;
    return true;
}

static bool restore_args(napi_env env, napi_value *args, struct writes_job *work)
{
    uint8_t *data;
    work->state = subpage_reduction_get(env, args[0], &subpage_restorer_tag);
    if (!work->state || !subpage_get_bytes(env, args[1], "reduced", &data, &work->bytes) ||
        !subpage_get_uint(env, args[2], UINT32_MAX, "pages", &work->image_pages) ||
        !subpage_get_uint(env, args[3], INT64_MAX, "bytesMax", &work->bytes_max) ||
        !subpage_get_results(env, args[4], RESTORE_RESULTS, &work->results))
        return false;
    work->data = data;
    work->job.execute = restore_execute;
    work->job.finish = finish;
    return true;
}

typedef bool read_args(napi_env env, napi_value *args, struct writes_job *work);

static napi_value run_inline(napi_env env, napi_callback_info info, size_t count, read_args *read)
{
    napi_value args[REDUCE_ARGS];
    struct writes_job work = {0};
    if (!subpage_args(env, info, count, args) || !read(env, args, &work))
        return NULL;
    work.job.execute(&work.job);
    return finish(env, &work.job);
}

static napi_value run_async(napi_env env, napi_callback_info info, size_t count, read_args *read)
{
    napi_value args[REDUCE_ARGS];
    struct writes_job *work;
    if (!subpage_args(env, info, count, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    if (!read(env, args, work)) {
        subpage_job_drop(&work->job);
        return NULL;
    }
    struct reduction *state = work->state;
    state->busy = true;
    napi_value promise = subpage_job_start(env, &work->job, args, count, "subpage:writes");
    if (!promise)
        state->busy = false;
    return promise;
}

/* reduceWrites(handle, records, shadow | undefined, refer, method, results) → undefined | problem */
static napi_value reduce_inline(napi_env env, napi_callback_info info)
{
    return run_inline(env, info, REDUCE_ARGS, reduce_args);
}

static napi_value reduce_async(napi_env env, napi_callback_info info)
{
    return run_async(env, info, REDUCE_ARGS, reduce_args);
}

/*
 * restoreWrites(handle, reduced, imagePages, bytesMax, results) → undefined | problem; results: bytes of records and of fills, which
 * follow them, for reductionRead; whether these are for after the epoch
 */
static napi_value restore_inline(napi_env env, napi_callback_info info)
{
    return run_inline(env, info, RESTORE_ARGS, restore_args);
}

static napi_value restore_async(napi_env env, napi_callback_info info)
{
    return run_async(env, info, RESTORE_ARGS, restore_args);
}

struct fill_job {
    struct subpage_job job;
    uint8_t *records;
    size_t bytes;
    const struct sp_fill *fills;
    size_t count;
    const uint8_t *image;
    uint64_t image_pages;
    bool done;
};

static void fill_execute(struct subpage_job *job)
{
    struct fill_job *work = (struct fill_job *)job;
    work->done = sp_fill_writes(work->records, work->bytes, work->fills, work->count, work->image, work->image_pages);
}

static napi_value fill_finish(napi_env env, struct subpage_job *job)
{
    napi_value done;
    return napi_get_boolean(env, ((struct fill_job *)job)->done, &done) == napi_ok ? done : NULL;
}

/* fillWrites(records, fills, image) → promise of false when one lies outside of either; nothing is filled then */
static napi_value fill_call(napi_env env, napi_callback_info info)
{
    napi_value args[FILL_ARGS];
    struct fill_job *work;
    uint8_t *fills;
    size_t bytes;
    if (!subpage_args(env, info, FILL_ARGS, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    struct subpage_region *region = NULL;
    if (subpage_get_bytes(env, args[0], "records", &work->records, &work->bytes) &&
        subpage_get_bytes(env, args[1], "fills", &fills, &bytes) &&
        (region = subpage_region_get(env, args[2], false)) != NULL) {
        if (bytes % sizeof(struct sp_fill) == 0 && (uintptr_t)fills % _Alignof(struct sp_fill) == 0) {
            *work = (struct fill_job){.job = work->job,
                                      .records = work->records,
                                      .bytes = work->bytes,
                                      .fills = (const struct sp_fill *)fills,
                                      .count = bytes / sizeof(struct sp_fill),
                                      .image = region->address,
                                      .image_pages = region->bytes / SP_PAGE_BYTES};
            work->job.regions[0] = region;
            work->job.execute = fill_execute;
            work->job.finish = fill_finish;
            return subpage_job_start(env, &work->job, args, FILL_ARGS, "subpage:fillWrites");
        }
        napi_throw_type_error(env, NULL, "fills are 12 bytes each, aligned to 4");
    }
    subpage_job_drop(&work->job);
    return NULL;
}

/* reducerKnow(handle, pairs, runs, shadow): pages of an epoch that is not reduced */
static napi_value know_call(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    const struct sp_run *runs;
    size_t run_count;
    if (!subpage_args(env, info, 4, args))
        return NULL;
    struct reduction *state = subpage_reduction_get(env, args[0], &subpage_reducer_tag);
    if (!state || !subpage_get_runs(env, args[1], args[2], &runs, &run_count))
        return NULL;
    struct subpage_region *region = subpage_region_get(env, args[3], false);
    if (!region)
        return NULL;
    if (region->bytes / SP_PAGE_BYTES < sp_reducer_pages(state->reducer)) {
        napi_throw_type_error(env, NULL, "the shadow is smaller than the reducer's guest");
        return NULL;
    }
    sp_reducer_know(state->reducer, runs, run_count, region->address);
    return NULL;
}

void subpage_register_writes(napi_env env, napi_value exports)
{
    export_function(env, exports, "reduceWrites", reduce_inline);
    export_function(env, exports, "reduceWritesAsync", reduce_async);
    export_function(env, exports, "restoreWrites", restore_inline);
    export_function(env, exports, "restoreWritesAsync", restore_async);
    export_function(env, exports, "fillWrites", fill_call);
    export_function(env, exports, "reducerKnow", know_call);
}
