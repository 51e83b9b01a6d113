/* Conversions between JavaScript values and C, each with an error that names the argument. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "addon.h"

static void throw_type(napi_env env, const char *what, const char *wanted)
{
    char message[160];
    snprintf(message, sizeof message, "%s must be %s", what, wanted);
    napi_throw_type_error(env, NULL, message);
}

void export_function(napi_env env, napi_value exports, const char *name, napi_callback callback)
{
    napi_value function;
    if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, NULL, &function) != napi_ok ||
        napi_set_named_property(env, exports, name, function) != napi_ok)
        napi_throw_error(env, NULL, "cannot export a function of the addon");
}

bool subpage_args(napi_env env, napi_callback_info info, size_t count, napi_value *args)
{
    size_t given = count;
    if (napi_get_cb_info(env, info, &given, args, NULL, NULL) != napi_ok || given < count) {
        napi_throw_type_error(env, NULL, "too few arguments");
        return false;
    }
    return true;
}

bool subpage_get_uint(napi_env env, napi_value value, uint64_t limit, const char *what, uint64_t *result)
{
    double number;
    if (napi_get_value_double(env, value, &number) != napi_ok || !(number >= 0) || number > 9007199254740991.0 ||
        number != (double)(uint64_t)number || (uint64_t)number > limit) {
        throw_type(env, what, "a whole number within its range");
        return false;
    }
    *result = (uint64_t)number;
    return true;
}

bool subpage_get_bool(napi_env env, napi_value value, const char *what, bool *result)
{
    if (napi_get_value_bool(env, value, result) == napi_ok)
        return true;
    throw_type(env, what, "a boolean");
    return false;
}

static bool get_typed(napi_env env, napi_value value, napi_typedarray_type wanted, void **data, size_t *length)
{
    bool typed = false;
    napi_typedarray_type type;
    napi_value buffer;
    size_t offset;
    return napi_is_typedarray(env, value, &typed) == napi_ok && typed &&
           napi_get_typedarray_info(env, value, &type, length, data, &buffer, &offset) == napi_ok && type == wanted;
}

bool subpage_get_bytes(napi_env env, napi_value value, const char *what, uint8_t **data, size_t *bytes)
{
    if (get_typed(env, value, napi_uint8_array, (void **)data, bytes))
        return true;
    throw_type(env, what, "a Uint8Array");
    return false;
}

bool subpage_get_u32s(napi_env env, napi_value value, const char *what, uint32_t **data, size_t *count)
{
    if (get_typed(env, value, napi_uint32_array, (void **)data, count))
        return true;
    throw_type(env, what, "a Uint32Array");
    return false;
}

bool subpage_get_shape(napi_env env, napi_value value, struct sp_sketch_shape *shape)
{
    uint32_t *fields;
    size_t length;
    if (!subpage_get_u32s(env, value, "shape", &fields, &length))
        return false;
    if (length == 3) {
        *shape = (struct sp_sketch_shape){fields[0], fields[1], fields[2]};
        if (sp_sketch_shape_valid(shape))
            return true;
    }
    napi_throw_type_error(env, NULL, "no such shape of the similarity detector");
    return false;
}

bool subpage_get_runs(napi_env env, napi_value pairs, napi_value count, const struct sp_run **runs, size_t *run_count)
{
    uint32_t *data;
    size_t length;
    uint64_t wanted;
    if (!subpage_get_u32s(env, pairs, "ranges", &data, &length) ||
        !subpage_get_uint(env, count, length / 2, "the number of runs", &wanted))
        return false;
    *runs = (const struct sp_run *)data;
    *run_count = (size_t)wanted;
    return true;
}

bool subpage_get_results(napi_env env, napi_value value, size_t count, double **data)
{
    size_t length;
    if (get_typed(env, value, napi_float64_array, (void **)data, &length) && length >= count)
        return true;
    throw_type(env, "results", "a Float64Array that is large enough");
    return false;
}

napi_value throw_errno(napi_env env, const char *what)
{
    int error = errno;
    char message[512];
    snprintf(message, sizeof message, "%s: %s", what, strerror(error));
    napi_throw_error(env, strerrorname_np(error), message);
    return NULL;
}
