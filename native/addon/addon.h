/*
 * Node-API glue. TypeScript validates what it can (src/memory/native.ts says what each function takes); C checks what
 * memory safety needs, and computes. One file per subject: it defines `subpage_register_X`, and addon.c calls it.
 */
#ifndef SUBPAGE_ADDON_H
#define SUBPAGE_ADDON_H

#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/core.h"
#include "../core/similar.h"

/* A registered subject adds its functions to `exports`. A new file is one line in each of these two lists. */
void subpage_register_changes(napi_env env, napi_value exports);
void subpage_register_bench(napi_env env, napi_value exports);
void subpage_register_region(napi_env env, napi_value exports);
void subpage_register_delta(napi_env env, napi_value exports);
void subpage_register_descriptors(napi_env env, napi_value exports);
void subpage_register_disk(napi_env env, napi_value exports);
void subpage_register_disk_records(napi_env env, napi_value exports);
void subpage_register_files(napi_env env, napi_value exports);
void subpage_register_forget(napi_env env, napi_value exports);
void subpage_register_hash(napi_env env, napi_value exports);
void subpage_register_lease(napi_env env, napi_value exports);
void subpage_register_pagemap(napi_env env, napi_value exports);
void subpage_register_pager(napi_env env, napi_value exports);
void subpage_register_plugin(napi_env env, napi_value exports);
void subpage_register_process(napi_env env, napi_value exports);
void subpage_register_reduce(napi_env env, napi_value exports);
void subpage_register_store(napi_env env, napi_value exports);
void subpage_register_survey(napi_env env, napi_value exports);
void subpage_register_writes(napi_env env, napi_value exports);

#define SUBPAGE_SUBJECTS(X)                                                                                        \
    X(changes) X(bench) X(region) X(delta) X(descriptors) X(disk) X(disk_records) X(files) X(forget) X(hash) X(lease) X(pagemap) X(pager) X(plugin) X(process) X(reduce) \
    X(store) X(survey) X(writes)

/* Adds one function; a failure here leaves an exception pending and the addon does not load. */
void export_function(napi_env env, napi_value exports, const char *name, napi_callback callback);

/* Fetches exactly `count` arguments, or throws a TypeError and returns false. */
bool subpage_args(napi_env env, napi_callback_info info, size_t count, napi_value *args);

/* Converters. Each throws a TypeError naming `what` and returns false when the value has another form. */
bool subpage_get_uint(napi_env env, napi_value value, uint64_t limit, const char *what, uint64_t *result);
bool subpage_get_bool(napi_env env, napi_value value, const char *what, bool *result);
bool subpage_get_bytes(napi_env env, napi_value value, const char *what, uint8_t **data, size_t *bytes);
bool subpage_get_u32s(napi_env env, napi_value value, const char *what, uint32_t **data, size_t *count);
/* A Uint32Array of k, s, c. */
bool subpage_get_shape(napi_env env, napi_value value, struct sp_sketch_shape *shape);
/* Runs of pages: the pairs of a PageRanges and how many of them count. */
bool subpage_get_runs(napi_env env, napi_value pairs, napi_value count, const struct sp_run **runs, size_t *run_count);
/* A Float64Array of at least `count` elements, into which results are written. */
bool subpage_get_results(napi_env env, napi_value value, size_t count, double **data);

/* Throws an Error whose `code` is the name of the present errno (ENOSPC, ...) and returns NULL. */
napi_value throw_errno(napi_env env, const char *what);

/*
 * Mapped memory behind a handle. Used and counted on the thread of its environment only. `users` counts running
 * asynchronous operations: closing while some run is deferred until the last has finished, and no new one can begin.
 */
struct subpage_region {
    uint8_t *address;
    size_t bytes;
    int fd; /* -1 for anonymous memory */
    napi_env env; /* that was told of the memory; NULL before */
    bool writable;
    bool closed;
    unsigned users;
};

/* The region of a handle, or NULL with a TypeError pending when it is none, is closed, or is not writable. */
struct subpage_region *subpage_region_get(napi_env env, napi_value handle, bool writable);
void subpage_region_hold(struct subpage_region *region);
void subpage_region_release(struct subpage_region *region);

/*
 * Runs `execute` in the thread pool and resolves a promise with what `finish` returns (undefined when NULL). The job
 * keeps its arguments alive and its regions mapped meanwhile. `execute` must not touch Node-API.
 */
struct subpage_job {
    void (*execute)(struct subpage_job *job);
    napi_value (*finish)(napi_env env, struct subpage_job *job);
    struct subpage_region *regions[2];
    napi_async_work work;
    napi_deferred deferred;
    napi_ref arguments;
};

/* Allocated by subpage_job_new with `bytes` for the struct that embeds subpage_job first; freed by the machinery. */
void *subpage_job_new(napi_env env, size_t bytes);
/* Starts the job, or frees it and returns NULL with an exception pending. */
napi_value subpage_job_start(napi_env env, struct subpage_job *job, napi_value *args, size_t arg_count,
                             const char *name);
void subpage_job_drop(struct subpage_job *job);

#endif
