/* Changes of pages as numbers, for recordings; data and holes of files, for memory images. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/file.h>
#include <unistd.h>

#include "addon.h"

static bool get_u16s(napi_env env, napi_value value, const char *what, uint16_t **data, size_t *count)
{
    bool typed = false;
    napi_typedarray_type type;
    napi_value buffer;
    size_t offset;
    if (napi_is_typedarray(env, value, &typed) == napi_ok && typed &&
        napi_get_typedarray_info(env, value, &type, count, (void **)data, &buffer, &offset) == napi_ok &&
        type == napi_uint16_array)
        return true;
    napi_throw_type_error(env, NULL, what);
    return false;
}

/* pageChanges(ram, shadow, pairs, runs, update, maps: Uint32Array, byteCounts: Uint16Array) -> false: a range outside */
static napi_value page_changes(napi_env env, napi_callback_info info)
{
    napi_value args[7], done;
    if (!subpage_args(env, info, 7, args))
        return NULL;
    struct subpage_region *ram = subpage_region_get(env, args[0], false);
    struct subpage_region *shadow = ram ? subpage_region_get(env, args[1], true) : NULL;
    const struct sp_run *runs;
    size_t run_count, map_count, byte_counts_length;
    uint32_t *maps;
    uint16_t *byte_counts;
    bool update;
    if (!shadow || !subpage_get_runs(env, args[2], args[3], &runs, &run_count) ||
        !subpage_get_bool(env, args[4], "update", &update) ||
        !subpage_get_u32s(env, args[5], "maps", &maps, &map_count) ||
        !get_u16s(env, args[6], "byteCounts must be a Uint16Array", &byte_counts, &byte_counts_length))
        return NULL;
    uint64_t total = 0;
    for (size_t run = 0; run < run_count; run++)
        total += runs[run].count;
    if (ram->bytes != shadow->bytes || map_count < 2 * total || byte_counts_length < total) {
        napi_throw_type_error(env, NULL, "memory and shadow differ in size, or there is no room for so many pages");
        return NULL;
    }
    bool inside = sp_page_changes(ram->address, shadow->address, ram->bytes / SP_PAGE_BYTES, runs, run_count, update,
                                  maps, byte_counts);
    return napi_get_boolean(env, inside, &done) == napi_ok ? done : NULL;
}

/*
 * fileData(fd, from, span: Float64Array) -> false when nothing but a hole is left
 * span becomes [start, end) of the first data at or after `from`. A file system without holes reports one piece.
 */
static napi_value file_data(napi_env env, napi_callback_info info)
{
    napi_value args[3], found;
    uint64_t fd, from;
    double *span;
    if (!subpage_args(env, info, 3, args) || !subpage_get_uint(env, args[0], INT32_MAX, "fd", &fd) ||
        !subpage_get_uint(env, args[1], INT64_MAX, "from", &from) || !subpage_get_results(env, args[2], 2, &span))
        return NULL;
    off_t start = lseek((int)fd, (off_t)from, SEEK_DATA);
    if (start < 0 && errno != ENXIO)
        return throw_errno(env, "SEEK_DATA");
    if (start >= 0) {
        off_t end = lseek((int)fd, start, SEEK_HOLE);
        if (end < 0)
            return throw_errno(env, "SEEK_HOLE");
        span[0] = (double)start;
        span[1] = (double)end;
    }
    return napi_get_boolean(env, start >= 0, &found) == napi_ok ? found : NULL;
}

/* lockFile(fd) -> false when another open file holds it. Held until the descriptor is closed (flock(2)). */
static napi_value lock_file(napi_env env, napi_callback_info info)
{
    napi_value args[1], locked;
    uint64_t fd;
    if (!subpage_args(env, info, 1, args) || !subpage_get_uint(env, args[0], INT32_MAX, "fd", &fd))
        return NULL;
    int result = flock((int)fd, LOCK_EX | LOCK_NB);
    if (result < 0 && errno != EWOULDBLOCK)
        return throw_errno(env, "flock");
    return napi_get_boolean(env, result == 0, &locked) == napi_ok ? locked : NULL;
}

void subpage_register_changes(napi_env env, napi_value exports)
{
    export_function(env, exports, "pageChanges", page_changes);
    export_function(env, exports, "fileData", file_data);
    export_function(env, exports, "lockFile", lock_file);
}
