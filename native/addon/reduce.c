/*
 * Reducer and restorer behind handles: the state of one direction of one connection. One operation at a time; a second one
 * meanwhile is a TypeError, and closing waits for the one that runs.
 */
#include <stdlib.h>

#include "reduction.h"

#include "../disk/journal.h"
#include "../disk/nbd_protocol.h"

const napi_type_tag subpage_reducer_tag = {0x3c8f0a6b77d14e52, 0xa4b1d90c2e65f817};
const napi_type_tag subpage_restorer_tag = {0x7d21b4c9e08f4a36, 0x95e3c7180b6da24f};

/*
 * What the collector is told that a handle keeps alive: the dictionary, and a compression window once one is in use. Not
 * told, it leaves the handles of lost connections lying about for long.
 */
enum { TOLD_BYTES = (int)sizeof(struct sp_dictionary) + (4 << 20) };

static void tell_collector(napi_env env, struct reduction *state, int64_t bytes)
{
    int64_t total;
    napi_adjust_external_memory(env, bytes - state->told_bytes, &total);
    state->told_bytes = bytes;
}

static void release(napi_env env, struct reduction *state)
{
    tell_collector(env, state, 0);
    sp_reducer_free(state->reducer);
    sp_restorer_free(state->restorer);
    sp_vector_free(&state->out);
    state->reducer = NULL;
    state->restorer = NULL;
}

static void finalize(napi_env env, void *data, void *hint)
{
    (void)hint;
    release(env, data);
    free(data);
}

static napi_value wrap(napi_env env, struct reduction made, const napi_type_tag *tag)
{
    napi_value handle;
    struct reduction *state = (made.reducer || made.restorer) ? malloc(sizeof *state) : NULL;
    if (state) {
        *state = made;
        tell_collector(env, state, TOLD_BYTES);
        if (napi_create_object(env, &handle) == napi_ok &&
            napi_wrap(env, handle, state, finalize, NULL, NULL) == napi_ok)
            return napi_type_tag_object(env, handle, tag) == napi_ok ? handle : NULL;
    }
    if (state)
        tell_collector(env, state, 0);
    release(env, &made);
    free(state);
    napi_throw_error(env, "ENOMEM", "no memory for the state of a connection");
    return NULL;
}

/* The state of a handle of this kind, or of either when `tag` is NULL. */
static struct reduction *unwrap(napi_env env, napi_value handle, const napi_type_tag *tag)
{
    void *state = NULL;
    bool is_reducer = false, is_restorer = false;
    napi_check_object_type_tag(env, handle, &subpage_reducer_tag, &is_reducer);
    napi_check_object_type_tag(env, handle, &subpage_restorer_tag, &is_restorer);
    bool matches = (is_reducer && tag != &subpage_restorer_tag) || (is_restorer && tag != &subpage_reducer_tag);
    if (matches && napi_unwrap(env, handle, &state) == napi_ok)
        return state;
    napi_throw_type_error(env, NULL, tag == &subpage_reducer_tag ? "not a reducer" : "not a restorer");
    return NULL;
}

struct reduction *subpage_reduction_get(napi_env env, napi_value handle, const napi_type_tag *tag)
{
    struct reduction *state = unwrap(env, handle, tag);
    if (state && (state->closed || state->busy)) {
        napi_throw_type_error(env, NULL, state->closed ? "it is closed" : "it is busy");
        return NULL;
    }
    return state;
}

void subpage_reduction_done(napi_env env, struct reduction *state)
{
    state->busy = false;
    if (state->closed)
        release(env, state);
}

static napi_value text_or_undefined(napi_env env, const char *problem)
{
    napi_value text;
    return problem && napi_create_string_utf8(env, problem, NAPI_AUTO_LENGTH, &text) == napi_ok ? text : NULL;
}

/* reducerNew(pages, dictionary, sharing, similar, blockBytes) → handle */
static napi_value reducer_new(napi_env env, napi_callback_info info)
{
    napi_value args[5];
    uint64_t pages, block_bytes;
    struct sp_reduce_parts parts;
    if (!subpage_args(env, info, 5, args) || !subpage_get_uint(env, args[0], UINT32_MAX, "pages", &pages) ||
        !subpage_get_bool(env, args[1], "dictionary", &parts.dictionary) ||
        !subpage_get_bool(env, args[2], "sharing", &parts.sharing) ||
        !subpage_get_bool(env, args[3], "similar", &parts.similar) ||
        !subpage_get_uint(env, args[4], SP_PAGE_BYTES, "blockBytes", &block_bytes))
        return NULL;
    if (block_bytes < SP_LINE_BYTES || (block_bytes & (block_bytes - 1)) != 0) {
        napi_throw_type_error(env, NULL, "blockBytes must be a power of two from 64 to 4096");
        return NULL;
    }
    parts.block_bytes = (unsigned)block_bytes;
    return wrap(env, (struct reduction){.reducer = sp_reducer_new(pages, &parts)}, &subpage_reducer_tag);
}

/* restorerNew() → handle */
static napi_value restorer_new(napi_env env, napi_callback_info info)
{
    if (!subpage_args(env, info, 0, NULL))
        return NULL;
    return wrap(env, (struct reduction){.restorer = sp_restorer_new()}, &subpage_restorer_tag);
}

/* reducerBegin(handle, references) */
static napi_value reducer_begin(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    bool references;
    if (!subpage_args(env, info, 2, args))
        return NULL;
    struct reduction *state = subpage_reduction_get(env, args[0], &subpage_reducer_tag);
    if (state && subpage_get_bool(env, args[1], "references", &references))
        sp_reducer_begin(state->reducer, references);
    return NULL;
}

/* reducerInclude(handle, pairs, runs) → false when a range lies outside the memory */
static napi_value reducer_include(napi_env env, napi_callback_info info)
{
    napi_value args[3], done;
    const struct sp_run *runs;
    size_t run_count;
    if (!subpage_args(env, info, 3, args))
        return NULL;
    struct reduction *state = subpage_reduction_get(env, args[0], &subpage_reducer_tag);
    if (!state || !subpage_get_runs(env, args[1], args[2], &runs, &run_count))
        return NULL;
    return napi_get_boolean(env, sp_reducer_include(state->reducer, runs, run_count), &done) == napi_ok ? done : NULL;
}

struct reduce_job {
    struct subpage_job job;
    struct reduction *state;
    const uint8_t *data;
    size_t bytes;
    const uint8_t *memory; /* shadow or image */
    uint64_t pages;
    uint64_t number; /* method or bytes_max */
    double *results;
    struct sp_reduce_stats stats;
    const char *problem;
};

enum { REDUCE_RESULTS = 6, RESTORE_RESULTS = 1 };

static void reduce_execute(struct subpage_job *job)
{
    struct reduce_job *reduce = (struct reduce_job *)job;
    reduce->problem = sp_reduce(reduce->state->reducer, reduce->data, reduce->bytes, reduce->memory,
                                (enum sp_squeeze)reduce->number, &reduce->state->out, &reduce->stats);
}

static void restore_execute(struct subpage_job *job)
{
    struct reduce_job *reduce = (struct reduce_job *)job;
    reduce->problem = sp_restore(reduce->state->restorer, reduce->data, reduce->bytes, reduce->memory, reduce->pages,
                                 (size_t)reduce->number, &reduce->state->out);
}

static napi_value finish(napi_env env, struct subpage_job *job)
{
    struct reduce_job *reduce = (struct reduce_job *)job;
    struct reduction *state = reduce->state;
    reduce->results[0] = (double)state->out.bytes;
    if (state->reducer) {
        reduce->results[1] = (double)reduce->stats.lines;
        reduce->results[2] = (double)reduce->stats.dictionary_lines;
        reduce->results[3] = (double)reduce->stats.shared_lines;
        reduce->results[4] = (double)reduce->stats.similar_pages;
        reduce->results[5] = (double)reduce->stats.body_bytes;
    }
    subpage_reduction_done(env, state);
    return text_or_undefined(env, reduce->problem);
}

/* Both take (handle, data, region | undefined, number, results) */
enum { JOB_ARGS = 5 };

static bool from_args(napi_env env, napi_value *args, const napi_type_tag *tag, struct reduce_job *job)
{
    bool reduces = tag == &subpage_reducer_tag;
    napi_valuetype type;
    uint8_t *data;
    job->state = subpage_reduction_get(env, args[0], tag);
    if (!job->state || !subpage_get_bytes(env, args[1], "data", &data, &job->bytes) ||
        napi_typeof(env, args[2], &type) != napi_ok ||
        !subpage_get_uint(env, args[3], reduces ? SP_SQUEEZE_COUNT - 1 : INT64_MAX,
                          reduces ? "the method" : "bytesMax", &job->number) ||
        !subpage_get_results(env, args[4], reduces ? REDUCE_RESULTS : RESTORE_RESULTS, &job->results))
        return false;
    job->data = data;
    if (!reduces || type != napi_undefined) {
        struct subpage_region *region = subpage_region_get(env, args[2], false);
        if (!region)
            return false;
        job->memory = region->address;
        job->pages = region->bytes / SP_PAGE_BYTES;
        /* It looks up whatever page the delta names. */
        if (reduces && job->pages < sp_reducer_pages(job->state->reducer)) {
            napi_throw_type_error(env, NULL, "the shadow is smaller than the reducer's guest");
            return false;
        }
        job->job.regions[0] = region;
    }
    job->job.execute = reduces ? reduce_execute : restore_execute;
    job->job.finish = finish;
    return true;
}

static napi_value run_inline(napi_env env, napi_callback_info info, const napi_type_tag *tag)
{
    napi_value args[JOB_ARGS];
    struct reduce_job job = {0};
    if (!subpage_args(env, info, JOB_ARGS, args) || !from_args(env, args, tag, &job))
        return NULL;
    job.job.execute(&job.job);
    return finish(env, &job.job);
}

static napi_value run_async(napi_env env, napi_callback_info info, const napi_type_tag *tag)
{
    napi_value args[JOB_ARGS];
    if (!subpage_args(env, info, JOB_ARGS, args))
        return NULL;
    struct reduce_job *job = subpage_job_new(env, sizeof *job);
    if (!job)
        return NULL;
    if (!from_args(env, args, tag, job)) {
        subpage_job_drop(&job->job);
        return NULL;
    }
    struct reduction *state = job->state;
    state->busy = true;
    napi_value promise = subpage_job_start(env, &job->job, args, JOB_ARGS, "subpage:reduce");
    if (!promise)
        state->busy = false;
    return promise;
}

/* reduce(handle, delta, shadow | undefined, method, results) → undefined | problem */
static napi_value reduce_inline(napi_env env, napi_callback_info info)
{
    return run_inline(env, info, &subpage_reducer_tag);
}

static napi_value reduce_async(napi_env env, napi_callback_info info)
{
    return run_async(env, info, &subpage_reducer_tag);
}

/* restore(handle, reduced, image, bytesMax, results) → undefined | problem */
static napi_value restore_inline(napi_env env, napi_callback_info info)
{
    return run_inline(env, info, &subpage_restorer_tag);
}

static napi_value restore_async(napi_env env, napi_callback_info info)
{
    return run_async(env, info, &subpage_restorer_tag);
}

/*
 * restoreReferences(handle, reduced, imagePages, bytesMax, results) → undefined | problem; results: bytes of page numbers,
 * 32 bits each, for reductionRead
 */
static napi_value restore_references(napi_env env, napi_callback_info info)
{
    napi_value args[5];
    uint8_t *data;
    size_t bytes;
    uint64_t pages, bytes_max;
    double *results;
    if (!subpage_args(env, info, 5, args))
        return NULL;
    struct reduction *state = subpage_reduction_get(env, args[0], &subpage_restorer_tag);
    if (!state || !subpage_get_bytes(env, args[1], "reduced", &data, &bytes) ||
        !subpage_get_uint(env, args[2], UINT32_MAX, "pages", &pages) ||
        !subpage_get_uint(env, args[3], INT64_MAX, "bytesMax", &bytes_max) ||
        !subpage_get_results(env, args[4], RESTORE_RESULTS, &results))
        return NULL;
    const char *problem =
        sp_restore_references(state->restorer, data, bytes, pages, (size_t)bytes_max, &state->out);
    results[0] = (double)state->out.bytes;
    return text_or_undefined(env, problem);
}

/* restorerLearn(handle, delta): a delta that was sent as it is */
static napi_value restorer_learn(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    uint8_t *delta;
    size_t bytes;
    if (!subpage_args(env, info, 2, args))
        return NULL;
    struct reduction *state = subpage_reduction_get(env, args[0], &subpage_restorer_tag);
    if (state && subpage_get_bytes(env, args[1], "delta", &delta, &bytes))
        sp_restorer_learn(state->restorer, delta, bytes);
    return NULL;
}

/* reductionRead(handle, into): what the last operation made; `into` must have its length */
static napi_value reduction_read(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    uint8_t *into;
    size_t bytes;
    if (!subpage_args(env, info, 2, args))
        return NULL;
    struct reduction *state = subpage_reduction_get(env, args[0], NULL);
    if (!state || !subpage_get_bytes(env, args[1], "into", &into, &bytes))
        return NULL;
    if (bytes != state->out.bytes) {
        napi_throw_type_error(env, NULL, "into has not the length of what was made");
        return NULL;
    }
    if (bytes > 0)
        memcpy(into, state->out.data, bytes);
    return NULL;
}

/* reductionDigest(handle) → bigint: of all that the dictionary has learnt */
static napi_value reduction_digest(napi_env env, napi_callback_info info)
{
    napi_value args[1], digest;
    if (!subpage_args(env, info, 1, args))
        return NULL;
    struct reduction *state = subpage_reduction_get(env, args[0], NULL);
    if (!state)
        return NULL;
    uint64_t value = state->reducer ? sp_reducer_digest(state->reducer) : sp_restorer_digest(state->restorer);
    return napi_create_bigint_uint64(env, value, &digest) == napi_ok ? digest : NULL;
}

/* reducerBytes(handle) → memory that it takes */
static napi_value reducer_bytes(napi_env env, napi_callback_info info)
{
    napi_value args[1], bytes;
    if (!subpage_args(env, info, 1, args))
        return NULL;
    struct reduction *state = subpage_reduction_get(env, args[0], &subpage_reducer_tag);
    return state && napi_create_double(env, (double)sp_reducer_bytes(state->reducer), &bytes) == napi_ok ? bytes : NULL;
}

/* reductionClose(handle): idempotent; deferred while an operation runs */
static napi_value reduction_close(napi_env env, napi_callback_info info)
{
    napi_value args[1];
    if (!subpage_args(env, info, 1, args))
        return NULL;
    struct reduction *state = unwrap(env, args[0], NULL);
    if (state && !state->closed) {
        state->closed = true;
        if (!state->busy)
            release(env, state);
    }
    return NULL;
}

/* coreLimits() → what src/limits.ts declares too */
static napi_value core_limits(napi_env env, napi_callback_info info)
{
    (void)info;
    static const struct {
        const char *name;
        uint32_t value;
    } limits[] = {
        {"recordBytes", SP_RECORD_BYTES_MAX},
        {"reducedBodyBytes", SP_REDUCED_BODY_BYTES_MAX},
        {"dictionarySlots", SP_DICTIONARY_SLOTS},
        {"diskWriteBytes", JOURNAL_WRITE_BYTES_MAX},
        {"nbdOptionBytes", NBD_OPTION_BYTES_MAX},
    };
    napi_value result, number;
    if (napi_create_object(env, &result) != napi_ok)
        return NULL;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (napi_create_uint32(env, limits[i].value, &number) != napi_ok ||
            napi_set_named_property(env, result, limits[i].name, number) != napi_ok)
            return NULL;
    return result;
}

void subpage_register_reduce(napi_env env, napi_value exports)
{
    export_function(env, exports, "reducerNew", reducer_new);
    export_function(env, exports, "reducerBegin", reducer_begin);
    export_function(env, exports, "reducerInclude", reducer_include);
    export_function(env, exports, "reducerBytes", reducer_bytes);
    export_function(env, exports, "reduce", reduce_inline);
    export_function(env, exports, "reduceAsync", reduce_async);
    export_function(env, exports, "restorerNew", restorer_new);
    export_function(env, exports, "restore", restore_inline);
    export_function(env, exports, "restoreAsync", restore_async);
    export_function(env, exports, "restoreReferences", restore_references);
    export_function(env, exports, "restorerLearn", restorer_learn);
    export_function(env, exports, "reductionRead", reduction_read);
    export_function(env, exports, "reductionDigest", reduction_digest);
    export_function(env, exports, "reductionClose", reduction_close);
    export_function(env, exports, "coreLimits", core_limits);
}
