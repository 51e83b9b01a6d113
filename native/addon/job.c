/* Work in libuv's thread pool behind a promise. */
#include <stdlib.h>

#include "addon.h"

void *subpage_job_new(napi_env env, size_t bytes)
{
    void *job = calloc(1, bytes);
    if (!job)
        napi_throw_error(env, "ENOMEM", "out of memory");
    return job;
}

void subpage_job_drop(struct subpage_job *job)
{
    free(job);
}

static void execute(napi_env env, void *data)
{
    (void)env;
    struct subpage_job *job = data;
    job->execute(job);
}

static void settle(napi_env env, napi_status status, struct subpage_job *job)
{
    napi_value result = NULL, message;
    if (status == napi_ok)
        result = job->finish ? job->finish(env, job) : NULL;
    if (status != napi_ok) {
        /* Cancelled: the environment is going away. */
        if (napi_create_string_utf8(env, "cancelled", NAPI_AUTO_LENGTH, &message) == napi_ok &&
            napi_create_error(env, NULL, message, &result) == napi_ok)
            napi_reject_deferred(env, job->deferred, result);
        return;
    }
    if (!result)
        napi_get_undefined(env, &result);
    napi_resolve_deferred(env, job->deferred, result);
}

static void complete(napi_env env, napi_status status, void *data)
{
    struct subpage_job *job = data;
    for (int i = 0; i < 2; i++)
        if (job->regions[i])
            subpage_region_release(job->regions[i]);
    settle(env, status, job);
    napi_delete_reference(env, job->arguments);
    napi_delete_async_work(env, job->work);
    free(job);
}

/* One array that holds every argument: one reference keeps them all from the garbage collector. */
static napi_status keep_arguments(napi_env env, struct subpage_job *job, napi_value *args, size_t count)
{
    napi_value all;
    napi_status status = napi_create_array_with_length(env, count, &all);
    for (size_t i = 0; status == napi_ok && i < count; i++)
        status = napi_set_element(env, all, (uint32_t)i, args[i]);
    return status == napi_ok ? napi_create_reference(env, all, 1, &job->arguments) : status;
}

napi_value subpage_job_start(napi_env env, struct subpage_job *job, napi_value *args, size_t arg_count,
                             const char *name)
{
    napi_value promise, resource;
    if (keep_arguments(env, job, args, arg_count) != napi_ok ||
        napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &resource) != napi_ok ||
        napi_create_promise(env, &job->deferred, &promise) != napi_ok ||
        napi_create_async_work(env, NULL, resource, execute, complete, job, &job->work) != napi_ok)
        goto failed;
    for (int i = 0; i < 2; i++)
        if (job->regions[i])
            subpage_region_hold(job->regions[i]);
    if (napi_queue_async_work(env, job->work) == napi_ok)
        return promise;
    for (int i = 0; i < 2; i++)
        if (job->regions[i])
            subpage_region_release(job->regions[i]);
    napi_delete_async_work(env, job->work);
failed:
    if (job->arguments)
        napi_delete_reference(env, job->arguments);
    free(job);
    napi_throw_error(env, NULL, "cannot start work in the thread pool");
    return NULL;
}
