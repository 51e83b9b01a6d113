/* What benchmarks compare capture with (native/core/reference.c). */
#include "addon.h"

/* Both take (to, from, pairs, runs, ...): a region that is written and one of the same size that is read. */
static bool pages_from_args(napi_env env, napi_value *args, struct subpage_region **to, struct subpage_region **from,
                            const struct sp_run **runs, size_t *run_count)
{
    *to = subpage_region_get(env, args[0], true);
    *from = *to ? subpage_region_get(env, args[1], false) : NULL;
    if (!*from || !subpage_get_runs(env, args[2], args[3], runs, run_count))
        return false;
    if ((*to)->bytes == (*from)->bytes)
        return true;
    napi_throw_type_error(env, NULL, "the regions differ in size");
    return false;
}

/* copyPages(to, from, pairs, runs) → false when a range lies outside */
static napi_value copy_pages(napi_env env, napi_callback_info info)
{
    napi_value args[4], result;
    struct subpage_region *to, *from;
    const struct sp_run *runs;
    size_t run_count;
    if (!subpage_args(env, info, 4, args) || !pages_from_args(env, args, &to, &from, &runs, &run_count))
        return NULL;
    bool done = sp_copy_pages(to->address, from->address, to->bytes / SP_PAGE_BYTES, runs, run_count);
    return napi_get_boolean(env, done, &result) == napi_ok ? result : NULL;
}

/* xbzrlePipe(cache, ram, pairs, runs, out) → bytes, -1 when out is too small or a range lies outside */
static napi_value xbzrle_pipe(napi_env env, napi_callback_info info)
{
    napi_value args[5], result;
    struct subpage_region *cache, *ram;
    const struct sp_run *runs;
    size_t run_count, capacity;
    uint8_t *out;
    if (!subpage_args(env, info, 5, args) || !pages_from_args(env, args, &cache, &ram, &runs, &run_count) ||
        !subpage_get_bytes(env, args[4], "out", &out, &capacity))
        return NULL;
    int64_t bytes = sp_xbzrle_pipe(cache->address, ram->address, ram->bytes / SP_PAGE_BYTES, runs, run_count, out,
                                   capacity);
    return napi_create_int64(env, bytes, &result) == napi_ok ? result : NULL;
}

void subpage_register_bench(napi_env env, napi_value exports)
{
    export_function(env, exports, "copyPages", copy_pages);
    export_function(env, exports, "xbzrlePipe", xbzrle_pipe);
}
