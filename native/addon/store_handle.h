/*
 * The content store (native/core/store.h) and its pagers behind one handle, for the two files that serve it: store.c and
 * pager.c. What walks over many pages runs in the thread pool; the store locks itself.
 */
#ifndef SUBPAGE_STORE_HANDLE_H
#define SUBPAGE_STORE_HANDLE_H

#include "../core/pager.h"
#include "addon.h"

enum { STORE_GUESTS_ROOM = 1024 };

struct store_handle {
    struct sp_store *store; /* NULL once closed */
    struct sp_pager *pagers[STORE_GUESTS_ROOM];
    unsigned users;
    bool closed;
    int64_t told_bytes;
};

/* The object of an open store; NULL with an exception pending, and the store is closed. */
napi_value store_handle_wrap(napi_env env, struct sp_store *store);

/* NULL with a TypeError pending when it is none, or closed. */
struct store_handle *store_handle_get(napi_env env, napi_value value);

/* Idempotent. Waits for what runs, ends the pagers (their guests wait for the next process that serves them), lets go. */
void store_handle_close(napi_env env, napi_value value);

/* The memory of its books, for the garbage collector. */
void store_handle_tell_memory(napi_env env, struct store_handle *handle);

bool store_get_guest(napi_env env, napi_value value, int *guest);
napi_value store_number(napi_env env, double value);

struct store_job {
    struct subpage_job job;
    struct store_handle *handle;
    int guest;
    const struct sp_run *runs;
    size_t run_count;
    uint64_t pages_max, flags, age_pack, age_swap, ram_fd;
    uint32_t *page_numbers;
    size_t page_count;
    uint8_t *into;
    char name[64];
    double *results;
    int error;
};

/* Runs it in the thread pool; the promise resolves with the errno. */
napi_value store_job_start(napi_env env, struct store_job *work, napi_value *args, size_t count, const char *name);

#endif
