/* Hashes and comparison of regions; checksums of frames. */
#include "addon.h"

struct hash_job {
    struct subpage_job job;
    const uint8_t *memory;
    uint64_t pages;
    const struct sp_run *runs;
    size_t run_count;
    size_t block_bytes;
    uint8_t *out;
    bool done;
};

/* hashBlocks(region, pairs, runs, blockBytes, out) → false when a range lies outside the region */
enum { HASH_ARGS = 5 };

static bool hash_from_args(napi_env env, napi_value *args, struct hash_job *job)
{
    struct subpage_region *region = subpage_region_get(env, args[0], false);
    uint64_t block_bytes, total = 0;
    size_t out_bytes;
    if (!region || !subpage_get_runs(env, args[1], args[2], &job->runs, &job->run_count) ||
        !subpage_get_uint(env, args[3], SP_PAGE_BYTES, "blockBytes", &block_bytes) ||
        !subpage_get_bytes(env, args[4], "out", &job->out, &out_bytes))
        return false;
    if (block_bytes < SP_LINE_BYTES || (block_bytes & (block_bytes - 1)) != 0) {
        napi_throw_type_error(env, NULL, "blockBytes must be a power of two from 64 to 4096");
        return false;
    }
    for (size_t run = 0; run < job->run_count; run++)
        total += job->runs[run].count;
    if (out_bytes < total * (SP_PAGE_BYTES / block_bytes) * 16) {
        napi_throw_type_error(env, NULL, "out is too small for the hashes");
        return false;
    }
    job->memory = region->address;
    job->pages = region->bytes / SP_PAGE_BYTES;
    job->block_bytes = (size_t)block_bytes;
    job->job.regions[0] = region;
    return true;
}

static void hash_execute(struct subpage_job *job)
{
    struct hash_job *hash = (struct hash_job *)job;
    hash->done = sp_hash_blocks(hash->memory, hash->pages, hash->runs, hash->run_count, hash->block_bytes, hash->out);
}

static napi_value hash_finish(napi_env env, struct subpage_job *job)
{
    napi_value done;
    return napi_get_boolean(env, ((struct hash_job *)job)->done, &done) == napi_ok ? done : NULL;
}

static napi_value hash_inline(napi_env env, napi_callback_info info)
{
    napi_value args[HASH_ARGS];
    struct hash_job job = {0};
    if (!subpage_args(env, info, HASH_ARGS, args) || !hash_from_args(env, args, &job))
        return NULL;
    hash_execute(&job.job);
    return hash_finish(env, &job.job);
}

static napi_value hash_async(napi_env env, napi_callback_info info)
{
    napi_value args[HASH_ARGS];
    if (!subpage_args(env, info, HASH_ARGS, args))
        return NULL;
    struct hash_job *job = subpage_job_new(env, sizeof *job);
    if (!job)
        return NULL;
    if (!hash_from_args(env, args, job)) {
        subpage_job_drop(&job->job);
        return NULL;
    }
    job->job.execute = hash_execute;
    job->job.finish = hash_finish;
    return subpage_job_start(env, &job->job, args, HASH_ARGS, "subpage:hash");
}

/* checksum64(first, second, into: Uint8Array, at): eight bytes, little endian, as the wire has them */
static napi_value checksum64(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    uint8_t *first, *second, *into;
    size_t first_bytes, second_bytes, into_bytes;
    uint64_t at;
    if (!subpage_args(env, info, 4, args) || !subpage_get_bytes(env, args[0], "data", &first, &first_bytes) ||
        !subpage_get_bytes(env, args[1], "data", &second, &second_bytes) ||
        !subpage_get_bytes(env, args[2], "into", &into, &into_bytes) ||
        !subpage_get_uint(env, args[3], into_bytes, "at", &at))
        return NULL;
    if (into_bytes - at < 8) {
        napi_throw_type_error(env, NULL, "into has no room for eight bytes");
        return NULL;
    }
    uint64_t sum = sp_checksum64(first, first_bytes, second, second_bytes);
    for (unsigned i = 0; i < 8; i++)
        into[at + i] = (uint8_t)(sum >> (8 * i));
    return NULL;
}

struct compare_job {
    struct subpage_job job;
    const uint8_t *a, *b;
    uint64_t pages;
    const struct sp_run *runs;
    size_t run_count;
    int64_t line;
};

/* compareRegions(a, b, pairs, runs) → index of the first differing line, -1 none, -2 a range outside */
enum { COMPARE_ARGS = 4 };

static bool compare_from_args(napi_env env, napi_value *args, struct compare_job *job)
{
    struct subpage_region *a = subpage_region_get(env, args[0], false);
    struct subpage_region *b = a ? subpage_region_get(env, args[1], false) : NULL;
    if (!b || !subpage_get_runs(env, args[2], args[3], &job->runs, &job->run_count))
        return false;
    job->a = a->address;
    job->b = b->address;
    job->pages = (a->bytes < b->bytes ? a->bytes : b->bytes) / SP_PAGE_BYTES;
    job->job.regions[0] = a;
    job->job.regions[1] = b;
    return true;
}

static void compare_execute(struct subpage_job *job)
{
    struct compare_job *compare = (struct compare_job *)job;
    compare->line = sp_compare_lines(compare->a, compare->b, compare->pages, compare->runs, compare->run_count);
}

static napi_value compare_finish(napi_env env, struct subpage_job *job)
{
    napi_value line;
    return napi_create_int64(env, ((struct compare_job *)job)->line, &line) == napi_ok ? line : NULL;
}

static napi_value compare_inline(napi_env env, napi_callback_info info)
{
    napi_value args[COMPARE_ARGS];
    struct compare_job job = {0};
    if (!subpage_args(env, info, COMPARE_ARGS, args) || !compare_from_args(env, args, &job))
        return NULL;
    compare_execute(&job.job);
    return compare_finish(env, &job.job);
}

static napi_value compare_async(napi_env env, napi_callback_info info)
{
    napi_value args[COMPARE_ARGS];
    if (!subpage_args(env, info, COMPARE_ARGS, args))
        return NULL;
    struct compare_job *job = subpage_job_new(env, sizeof *job);
    if (!job)
        return NULL;
    if (!compare_from_args(env, args, job)) {
        subpage_job_drop(&job->job);
        return NULL;
    }
    job->job.execute = compare_execute;
    job->job.finish = compare_finish;
    return subpage_job_start(env, &job->job, args, COMPARE_ARGS, "subpage:compare");
}

void subpage_register_hash(napi_env env, napi_value exports)
{
    export_function(env, exports, "hashBlocks", hash_inline);
    export_function(env, exports, "hashBlocksAsync", hash_async);
    export_function(env, exports, "checksum64", checksum64);
    export_function(env, exports, "compareRegions", compare_inline);
    export_function(env, exports, "compareRegionsAsync", compare_async);
}
