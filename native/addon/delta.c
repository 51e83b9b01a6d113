/* Capture, check and apply, each inline or in the thread pool. */
#include "addon.h"

enum { CAPTURE_RESULTS = 7, SUMMARY_RESULTS = 3 };

/* Pages of memory as a region: a last page that is not whole does not exist (region.c refuses such files). */
static uint64_t pages_of(const struct subpage_region *region)
{
    return region->bytes / SP_PAGE_BYTES;
}

/*
 * Three arguments say what a shadow is: blockLines, slots (of a cache, else undefined), seed (of hashes, else undefined).
 * `region` is its memory. @param pages of the guest
 */
enum { SHADOW_ARGS = 3 };

static bool shadow_from_args(napi_env env, napi_value *args, const struct subpage_region *region, uint64_t pages,
                             struct sp_shadow *shadow)
{
    napi_valuetype slots_type, seed_type;
    uint64_t block_lines;
    if (!subpage_get_uint(env, args[0], SP_LINES_PER_PAGE, "blockLines", &block_lines) ||
        napi_typeof(env, args[1], &slots_type) != napi_ok || napi_typeof(env, args[2], &seed_type) != napi_ok)
        return false;
    if (block_lines == 0 || (block_lines & (block_lines - 1)) != 0) {
        napi_throw_type_error(env, NULL, "blockLines must be a power of two");
        return false;
    }
    shadow->memory = region->address;
    shadow->block_lines = (unsigned)block_lines;
    if (seed_type != napi_undefined) {
        bool exact;
        if (napi_get_value_bigint_uint64(env, args[2], &shadow->seed, &exact) != napi_ok) {
            napi_throw_type_error(env, NULL, "the seed must be a bigint");
            return false;
        }
        shadow->hashed = true;
        if (region->bytes / SP_BLOCK_HASH_BYTES / (SP_LINES_PER_PAGE / block_lines) >= pages)
            return true;
    } else if (slots_type != napi_undefined) {
        uint32_t *slot_of;
        size_t count;
        if (!subpage_get_u32s(env, args[1], "slots", &slot_of, &count))
            return false;
        shadow->slot_of = slot_of;
        shadow->slots = pages_of(region);
        if (count >= pages)
            return true;
    } else if (pages_of(region) == pages) {
        return true;
    }
    napi_throw_type_error(env, NULL, "the shadow has no room for so much memory");
    return false;
}

/* capture(ram, shadow, pairs, runs, codec, whole, out, run, offset, results, changed, blockLines, slots, seed) */
enum { CAPTURE_ARGS = 11 + SHADOW_ARGS };

/* A byte for each page, or undefined. */
static bool changed_from_args(napi_env env, napi_value value, uint64_t pages, uint8_t **changed)
{
    napi_valuetype type;
    size_t length;
    if (napi_typeof(env, value, &type) != napi_ok)
        return false;
    if (type == napi_undefined)
        return true;
    if (!subpage_get_bytes(env, value, "changed", changed, &length))
        return false;
    if (length >= pages)
        return true;
    napi_throw_type_error(env, NULL, "changed needs a byte for each page");
    return false;
}

struct capture_job {
    struct subpage_job job;
    struct sp_capture capture;
    double *results;
    bool done;
};

static bool capture_from_args(napi_env env, napi_value *args, struct capture_job *job)
{
    struct sp_capture *capture = &job->capture;
    struct subpage_region *ram = subpage_region_get(env, args[0], false);
    struct subpage_region *shadow = ram ? subpage_region_get(env, args[1], true) : NULL;
    uint64_t codec, run, offset;
    uint8_t *out;
    if (!shadow || !subpage_get_runs(env, args[2], args[3], &capture->runs, &capture->run_count) ||
        !subpage_get_uint(env, args[4], SP_CODEC_COUNT - 1, "codec", &codec) ||
        !subpage_get_bool(env, args[5], "whole", &capture->whole) ||
        !subpage_get_bytes(env, args[6], "out", &out, &capture->capacity) ||
        !subpage_get_uint(env, args[7], capture->run_count, "the run to begin with", &run) ||
        !subpage_get_uint(env, args[8], UINT32_MAX, "the offset to begin with", &offset) ||
        !subpage_get_results(env, args[9], CAPTURE_RESULTS, &job->results) ||
        !changed_from_args(env, args[10], pages_of(ram), &capture->changed) ||
        !shadow_from_args(env, args + 11, shadow, pages_of(ram), &capture->shadow))
        return false;
    if (capture->capacity < SP_DELTA_MIN_CAPACITY) {
        napi_throw_type_error(env, NULL, "out is too small for one page");
        return false;
    }
    capture->ram = ram->address;
    capture->pages = pages_of(ram);
    capture->codec = (enum sp_codec)codec;
    capture->out = out;
    capture->run = (size_t)run;
    capture->offset = (uint32_t)offset;
    job->job.regions[0] = ram;
    job->job.regions[1] = shadow;
    return true;
}

/* True, or false with a TypeError pending. */
static napi_value capture_report(napi_env env, const struct capture_job *job)
{
    const struct sp_capture *capture = &job->capture;
    napi_value done;
    double *results = job->results;
    if (job->done) {
        results[0] = (double)capture->bytes;
        results[1] = (double)capture->run;
        results[2] = capture->offset;
        results[3] = (double)capture->stats.pages;
        results[4] = (double)capture->stats.changed_pages;
        results[5] = (double)capture->stats.changed_lines;
        results[6] = (double)capture->stats.changed_bytes;
    }
    return napi_get_boolean(env, job->done, &done) == napi_ok ? done : NULL;
}

/* → false when a range or the position lies outside the memory */
static napi_value capture_inline(napi_env env, napi_callback_info info)
{
    napi_value args[CAPTURE_ARGS];
    struct capture_job job = {0};
    if (!subpage_args(env, info, CAPTURE_ARGS, args) || !capture_from_args(env, args, &job))
        return NULL;
    job.done = sp_capture_run(&job.capture);
    return capture_report(env, &job);
}

static void capture_execute(struct subpage_job *job)
{
    struct capture_job *capture = (struct capture_job *)job;
    capture->done = sp_capture_run(&capture->capture);
}

static napi_value capture_finish(napi_env env, struct subpage_job *job)
{
    return capture_report(env, (struct capture_job *)job);
}

static napi_value capture_async(napi_env env, napi_callback_info info)
{
    napi_value args[CAPTURE_ARGS];
    if (!subpage_args(env, info, CAPTURE_ARGS, args))
        return NULL;
    struct capture_job *job = subpage_job_new(env, sizeof *job);
    if (!job)
        return NULL;
    if (!capture_from_args(env, args, job)) {
        subpage_job_drop(&job->job);
        return NULL;
    }
    job->job.execute = capture_execute;
    job->job.finish = capture_finish;
    return subpage_job_start(env, &job->job, args, CAPTURE_ARGS, "subpage:capture");
}

/* hashedSet(table, blockLines, undefined, seed, pages, first, content): whole pages that do not change meanwhile */
static napi_value hashed_set(napi_env env, napi_callback_info info)
{
    napi_value args[7];
    struct sp_shadow shadow = {0};
    uint64_t pages, first;
    uint8_t *content;
    size_t bytes;
    if (!subpage_args(env, info, 7, args))
        return NULL;
    struct subpage_region *table = subpage_region_get(env, args[0], true);
    if (!table || !subpage_get_uint(env, args[4], 1ull << 32, "the number of pages", &pages) ||
        !shadow_from_args(env, args + 1, table, pages, &shadow) ||
        !subpage_get_uint(env, args[5], pages, "the first page", &first) ||
        !subpage_get_bytes(env, args[6], "content", &content, &bytes))
        return NULL;
    if (!shadow.hashed || bytes / SP_PAGE_BYTES > pages - first) {
        napi_throw_type_error(env, NULL, "not hashes, or the content reaches beyond the memory");
        return NULL;
    }
    sp_hashed_set(&shadow, first, content, bytes / SP_PAGE_BYTES);
    return NULL;
}

struct difference_job {
    struct subpage_job job;
    const uint8_t *ram;
    uint64_t pages;
    struct sp_shadow shadow;
    int64_t line;
};

static void difference_execute(struct subpage_job *job)
{
    struct difference_job *difference = (struct difference_job *)job;
    difference->line = sp_shadow_difference(difference->ram, difference->pages, &difference->shadow);
}

static napi_value difference_finish(napi_env env, struct subpage_job *job)
{
    napi_value line;
    return napi_create_int64(env, ((struct difference_job *)job)->line, &line) == napi_ok ? line : NULL;
}

/* shadowDifference(ram, shadow, blockLines, slots, seed) → index of the first line that differs, -1 none */
enum { DIFFERENCE_ARGS = 2 + SHADOW_ARGS };

static bool difference_from_args(napi_env env, napi_value *args, struct difference_job *job)
{
    struct subpage_region *ram = subpage_region_get(env, args[0], false);
    struct subpage_region *shadow = ram ? subpage_region_get(env, args[1], true) : NULL;
    if (!shadow || !shadow_from_args(env, args + 2, shadow, pages_of(ram), &job->shadow))
        return false;
    job->ram = ram->address;
    job->pages = pages_of(ram);
    job->job.regions[0] = ram;
    job->job.regions[1] = shadow;
    return true;
}

static napi_value shadow_difference(napi_env env, napi_callback_info info)
{
    napi_value args[DIFFERENCE_ARGS];
    struct difference_job job = {0};
    if (!subpage_args(env, info, DIFFERENCE_ARGS, args) || !difference_from_args(env, args, &job))
        return NULL;
    difference_execute(&job.job);
    return difference_finish(env, &job.job);
}

static napi_value shadow_difference_async(napi_env env, napi_callback_info info)
{
    napi_value args[DIFFERENCE_ARGS];
    if (!subpage_args(env, info, DIFFERENCE_ARGS, args))
        return NULL;
    struct difference_job *job = subpage_job_new(env, sizeof *job);
    if (!job)
        return NULL;
    if (!difference_from_args(env, args, job)) {
        subpage_job_drop(&job->job);
        return NULL;
    }
    job->job.execute = difference_execute;
    job->job.finish = difference_finish;
    return subpage_job_start(env, &job->job, args, DIFFERENCE_ARGS, "subpage:difference");
}

struct apply_job {
    struct subpage_job job;
    uint8_t *image; /* NULL: only check */
    uint64_t image_pages;
    const uint8_t *delta;
    size_t bytes;
    double *results;
    struct sp_delta_summary summary;
    const char *problem;
};

static void apply_execute(struct subpage_job *job)
{
    struct apply_job *apply = (struct apply_job *)job;
    apply->problem =
        apply->image
            ? sp_delta_apply(apply->image, apply->image_pages, apply->delta, apply->bytes, &apply->summary)
            : sp_delta_check(apply->delta, apply->bytes, apply->image_pages, &apply->summary);
}

/* undefined, or a string that says what is wrong with the delta */
static napi_value apply_finish(napi_env env, struct subpage_job *job)
{
    const struct apply_job *apply = (const struct apply_job *)job;
    napi_value problem;
    if (apply->problem)
        return napi_create_string_utf8(env, apply->problem, NAPI_AUTO_LENGTH, &problem) == napi_ok ? problem : NULL;
    apply->results[0] = apply->summary.codec;
    apply->results[1] = apply->summary.whole;
    apply->results[2] = apply->summary.pages;
    return NULL;
}

/* checkDelta(delta, imagePages, results) → undefined | problem */
static napi_value check_delta(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    uint8_t *delta;
    struct apply_job job = {0};
    if (!subpage_args(env, info, 3, args) || !subpage_get_bytes(env, args[0], "delta", &delta, &job.bytes) ||
        !subpage_get_uint(env, args[1], 1ull << 32, "the number of pages", &job.image_pages) ||
        !subpage_get_results(env, args[2], SUMMARY_RESULTS, &job.results))
        return NULL;
    job.delta = delta;
    apply_execute(&job.job);
    return apply_finish(env, &job.job);
}

/* deltaPages(delta, pairs) → how many runs; a delta that was checked, and room for a run for each of its pages */
static napi_value delta_pages(napi_env env, napi_callback_info info)
{
    napi_value args[2], runs;
    uint8_t *delta;
    uint32_t *pairs;
    size_t bytes, room;
    struct sp_delta_summary summary;
    if (!subpage_args(env, info, 2, args) || !subpage_get_bytes(env, args[0], "delta", &delta, &bytes) ||
        !subpage_get_u32s(env, args[1], "pairs", &pairs, &room))
        return NULL;
    if (sp_delta_check(delta, bytes, UINT32_MAX, &summary) || room / 2 < summary.pages) {
        napi_throw_type_error(env, NULL, "not a delta, or no room for its pages");
        return NULL;
    }
    size_t count = sp_delta_pages(delta, bytes, (struct sp_run *)pairs);
    return napi_create_double(env, (double)count, &runs) == napi_ok ? runs : NULL;
}

/* apply(image, delta, results) → undefined | problem */
enum { APPLY_ARGS = 3 };

static bool apply_from_args(napi_env env, napi_value *args, struct apply_job *job)
{
    struct subpage_region *image = subpage_region_get(env, args[0], true);
    uint8_t *delta;
    if (!image || !subpage_get_bytes(env, args[1], "delta", &delta, &job->bytes) ||
        !subpage_get_results(env, args[2], SUMMARY_RESULTS, &job->results))
        return false;
    job->image = image->address;
    job->image_pages = pages_of(image);
    job->delta = delta;
    job->job.regions[0] = image;
    return true;
}

static napi_value apply_inline(napi_env env, napi_callback_info info)
{
    napi_value args[APPLY_ARGS];
    struct apply_job job = {0};
    if (!subpage_args(env, info, APPLY_ARGS, args) || !apply_from_args(env, args, &job))
        return NULL;
    apply_execute(&job.job);
    return apply_finish(env, &job.job);
}

static napi_value apply_async(napi_env env, napi_callback_info info)
{
    napi_value args[APPLY_ARGS];
    if (!subpage_args(env, info, APPLY_ARGS, args))
        return NULL;
    struct apply_job *job = subpage_job_new(env, sizeof *job);
    if (!job)
        return NULL;
    if (!apply_from_args(env, args, job)) {
        subpage_job_drop(&job->job);
        return NULL;
    }
    job->job.execute = apply_execute;
    job->job.finish = apply_finish;
    return subpage_job_start(env, &job->job, args, APPLY_ARGS, "subpage:apply");
}

/* cpuPath() → 'scalar' | 'avx2' */
static napi_value cpu_path(napi_env env, napi_callback_info info)
{
    (void)info;
    napi_value name;
    return napi_create_string_utf8(env, sp_cpu_path(), NAPI_AUTO_LENGTH, &name) == napi_ok ? name : NULL;
}

/* selectCpu(name) → false when there is no such path */
static napi_value select_cpu(napi_env env, napi_callback_info info)
{
    napi_value args[1], result;
    char name[16];
    size_t length;
    if (!subpage_args(env, info, 1, args))
        return NULL;
    if (napi_get_value_string_utf8(env, args[0], name, sizeof name, &length) != napi_ok) {
        napi_throw_type_error(env, NULL, "the name of a CPU path must be a string");
        return NULL;
    }
    return napi_get_boolean(env, sp_cpu_select(name), &result) == napi_ok ? result : NULL;
}

void subpage_register_delta(napi_env env, napi_value exports)
{
    export_function(env, exports, "capture", capture_inline);
    export_function(env, exports, "captureAsync", capture_async);
    export_function(env, exports, "hashedSet", hashed_set);
    export_function(env, exports, "shadowDifference", shadow_difference);
    export_function(env, exports, "shadowDifferenceAsync", shadow_difference_async);
    export_function(env, exports, "checkDelta", check_delta);
    export_function(env, exports, "deltaPages", delta_pages);
    export_function(env, exports, "apply", apply_inline);
    export_function(env, exports, "applyAsync", apply_async);
    export_function(env, exports, "cpuPath", cpu_path);
    export_function(env, exports, "selectCpu", select_cpu);
}
