/* See store_handle.h. */
#include "store_handle.h"

#include "../core/invariant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const napi_type_tag store_tag = {0x91c3f06e5ad84b27, 0xbe0417d2a86c395f};

static void release(napi_env env, struct store_handle *handle)
{
    int64_t now;
    SP_INVARIANT(handle->users == 0);
    for (unsigned i = 0; i < STORE_GUESTS_ROOM; i++)
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

void store_handle_tell_memory(napi_env env, struct store_handle *handle)
{
    struct store_totals totals;
    int64_t now;
    store_totals(handle->store, &totals);
    napi_adjust_external_memory(env, (int64_t)totals.book_bytes - handle->told_bytes, &now);
    handle->told_bytes = (int64_t)totals.book_bytes;
}

static struct store_handle *unwrap(napi_env env, napi_value value)
{
    bool ours = false;
    void *handle = NULL;
    if (napi_check_object_type_tag(env, value, &store_tag, &ours) == napi_ok && ours &&
        napi_unwrap(env, value, &handle) == napi_ok)
        return handle;
    napi_throw_type_error(env, NULL, "not a store");
    return NULL;
}

struct store_handle *store_handle_get(napi_env env, napi_value value)
{
    struct store_handle *handle = unwrap(env, value);
    if (handle && handle->closed) {
        napi_throw_type_error(env, NULL, "the store is closed");
        return NULL;
    }
    return handle;
}

napi_value store_handle_wrap(napi_env env, struct sp_store *store)
{
    napi_value object;
    struct store_handle *handle = calloc(1, sizeof *handle);
    if (!handle) {
        store_close(store);
        return throw_errno(env, "storeOpen");
    }
    handle->store = store;
    if (napi_create_object(env, &object) != napi_ok ||
        napi_wrap(env, object, handle, finalize, NULL, NULL) != napi_ok) {
        release(env, handle);
        free(handle);
        return NULL;
    }
    store_handle_tell_memory(env, handle);
    return napi_type_tag_object(env, object, &store_tag) == napi_ok ? object : NULL;
}

void store_handle_close(napi_env env, napi_value value)
{
    struct store_handle *handle = unwrap(env, value);
    if (!handle || handle->closed)
        return;
    handle->closed = true;
    if (handle->users == 0)
        release(env, handle);
}

bool store_get_guest(napi_env env, napi_value value, int *guest)
{
    uint64_t read;
    if (!subpage_get_uint(env, value, STORE_GUESTS_ROOM - 1, "guest", &read))
        return false;
    *guest = (int)read;
    return true;
}

napi_value store_number(napi_env env, double value)
{
    napi_value result;
    return napi_create_double(env, value, &result) == napi_ok ? result : NULL;
}

static napi_value finish(napi_env env, struct subpage_job *job)
{
    struct store_job *work = (struct store_job *)job;
    struct store_handle *handle = work->handle;
    SP_INVARIANT(handle->users > 0 && handle->store);
    if (--handle->users == 0 && handle->closed)
        release(env, handle);
    return store_number(env, work->error);
}

napi_value store_job_start(napi_env env, struct store_job *work, napi_value *args, size_t count, const char *name)
{
    struct store_handle *handle = work->handle;
    work->job.finish = finish;
    handle->users++;
    napi_value promise = subpage_job_start(env, &work->job, args, count, name);
    if (!promise)
        handle->users--;
    return promise;
}
