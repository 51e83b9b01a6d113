/*
 * The agent's side of the pause lease. The protocol and the layout are in native/shim/lease.h; the guard that takes an
 * overdue lease is native/shim/lease.c. Deadlines go to JavaScript as BigInt: they are compared, never computed with.
 */
#define _GNU_SOURCE
#include "../shim/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "addon.h"

/* Marks an external as ours; another module's external is then refused and not written to. */
static const napi_type_tag lease_tag = {0x5b1f6c1d2a7e4c90u, 0x9a3d7706e1f24b8cu};

struct handle {
    struct lease *lease; /* NULL once closed */
    pthread_t mirrors; /* shows that this process is alive, while `mirrored` */
    _Atomic bool mirrored;
};

enum { SIGN_OF_LIFE_MS = 100 };

static void *show_life(void *context)
{
    struct handle *handle = context;
    const struct timespec span = {.tv_nsec = SIGN_OF_LIFE_MS * 1000000L};
    while (handle->mirrored) {
        /* 0 once the guard has cut: then there is nothing to be alive for. */
        uint64_t until = atomic_load(&handle->lease->mirrors_until);
        if (until != 0)
            atomic_compare_exchange_strong(&handle->lease->mirrors_until, &until, lease_now_ns() + LEASE_MIRRORS_NS);
        nanosleep(&span, NULL);
    }
    return NULL;
}

static void end_mirrors(struct handle *handle)
{
    if (!handle->mirrored)
        return;
    handle->mirrored = false;
    pthread_join(handle->mirrors, NULL);
    atomic_store(&handle->lease->mirrors_until, 0);
}

static void unmap(struct handle *handle)
{
    if (handle->lease)
        end_mirrors(handle);
    if (handle->lease)
        munmap(handle->lease, LEASE_FILE_BYTES);
    handle->lease = NULL;
}

static void finalize(napi_env env, void *data, void *hint)
{
    (void)env;
    (void)hint;
    unmap(data);
    free(data);
}

static struct lease *map_lease(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return NULL;
    struct stat file;
    void *page = MAP_FAILED;
    if (fstat(fd, &file) == 0) {
        if (file.st_size >= LEASE_FILE_BYTES)
            page = mmap(NULL, LEASE_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        else
            errno = EINVAL;
    }
    int error = errno;
    close(fd);
    errno = error;
    return page == MAP_FAILED ? NULL : page;
}

/* leaseOpen(path) -> handle. Throws with code EINVAL when the file is shorter than one page. */
static napi_value lease_open(napi_env env, napi_callback_info info)
{
    size_t length;
    napi_value argv[1], object;
    char path[4096];
    if (!subpage_args(env, info, 1, argv))
        return NULL;
    if (napi_get_value_string_utf8(env, argv[0], path, sizeof path, &length) != napi_ok ||
        length >= sizeof path - 1) {
        napi_throw_type_error(env, NULL, "leaseOpen(path)");
        return NULL;
    }
    struct handle *handle = calloc(1, sizeof *handle);
    if (!handle)
        return throw_errno(env, "leaseOpen");
    handle->lease = map_lease(path);
    if (!handle->lease) {
        free(handle);
        return throw_errno(env, path);
    }
    if (napi_create_object(env, &object) != napi_ok || napi_type_tag_object(env, object, &lease_tag) != napi_ok ||
        napi_wrap(env, object, handle, finalize, NULL, NULL) != napi_ok) {
        unmap(handle);
        free(handle);
        return NULL;
    }
    return object;
}

/* Reads the arguments (handle, ...) of a call. NULL with a TypeError pending when the first is no open lease. */
static struct handle *arguments(napi_env env, napi_callback_info info, size_t wanted, napi_value *argv)
{
    bool ours = false;
    void *handle = NULL;
    if (!subpage_args(env, info, wanted, argv))
        return NULL;
    if (napi_check_object_type_tag(env, argv[0], &lease_tag, &ours) == napi_ok && ours &&
        napi_unwrap(env, argv[0], &handle) == napi_ok && ((struct handle *)handle)->lease)
        return handle;
    napi_throw_type_error(env, NULL, "not an open lease");
    return NULL;
}

static bool read_deadline(napi_env env, napi_value value, uint64_t *deadline)
{
    bool lossless;
    return napi_get_value_bigint_uint64(env, value, deadline, &lossless) == napi_ok && lossless;
}

static bool read_hold(napi_env env, napi_value value, uint64_t *hold_ns)
{
    double ms;
    if (napi_get_value_double(env, value, &ms) != napi_ok || !(ms > 0) || ms * 1e6 > (double)LEASE_HOLD_NS_MAX)
        return false;
    *hold_ns = (uint64_t)(ms * 1e6);
    return true;
}

static napi_value bad_arguments(napi_env env, const char *usage)
{
    napi_throw_type_error(env, NULL, usage);
    return NULL;
}

static napi_value bigint(napi_env env, uint64_t value)
{
    napi_value result;
    return napi_create_bigint_uint64(env, value, &result) == napi_ok ? result : NULL;
}

/* The deadline that is in force once `hold` has been given the second argument, a time to hold. */
static napi_value hold_for(napi_env env, napi_callback_info info, uint64_t (*hold)(struct lease *, uint64_t),
                           const char *usage)
{
    napi_value argv[2];
    uint64_t hold_ns;
    struct handle *handle = arguments(env, info, 2, argv);
    if (!handle)
        return NULL;
    if (!read_hold(env, argv[1], &hold_ns))
        return bad_arguments(env, usage);
    return bigint(env, hold(handle->lease, hold_ns));
}

/* leaseTake(lease, holdMs) -> deadline, or 0n when the lease is not free. */
static napi_value take(napi_env env, napi_callback_info info)
{
    return hold_for(env, info, lease_take, "leaseTake(lease, holdMs up to 60000)");
}

/* leaseRenew(lease, held, holdMs) -> new deadline, or 0n when `held` is not in force any more. */
static napi_value renew(napi_env env, napi_callback_info info)
{
    napi_value argv[3];
    uint64_t held, hold_ns;
    struct handle *handle = arguments(env, info, 3, argv);
    if (!handle)
        return NULL;
    if (!read_deadline(env, argv[1], &held) || !read_hold(env, argv[2], &hold_ns))
        return bad_arguments(env, "leaseRenew(lease, held, holdMs up to 60000)");
    return bigint(env, lease_renew(handle->lease, held, hold_ns));
}

/* Whether `held`, the second argument, was in force: as `change` finds. */
static napi_value change_held(napi_env env, napi_callback_info info, bool (*change)(struct lease *, uint64_t),
                              const char *usage)
{
    napi_value argv[2], result;
    uint64_t held;
    struct handle *handle = arguments(env, info, 2, argv);
    if (!handle)
        return NULL;
    if (!read_deadline(env, argv[1], &held))
        return bad_arguments(env, usage);
    return napi_get_boolean(env, change(handle->lease, held), &result) == napi_ok ? result : NULL;
}

/* leaseClear(lease, held) -> whether `held` was in force until now. */
static napi_value clear(napi_env env, napi_callback_info info)
{
    return change_held(env, info, lease_clear, "leaseClear(lease, held)");
}

/* leaseWord(lease) -> the state word as it is now. */
static napi_value word(napi_env env, napi_callback_info info)
{
    napi_value argv[1];
    struct handle *handle = arguments(env, info, 1, argv);
    return handle ? bigint(env, atomic_load(&handle->lease->word)) : NULL;
}

/* leaseExpiries(lease) -> how many pauses the guard has ended. */
static napi_value expiries(napi_env env, napi_callback_info info)
{
    napi_value argv[1];
    struct handle *handle = arguments(env, info, 1, argv);
    return handle ? bigint(env, atomic_load(&handle->lease->expiries)) : NULL;
}

/* leaseSpeak(lease, until): milliseconds on the clock of speakNowMs; Infinity: freely, 0: not at all. */
static napi_value speak(napi_env env, napi_callback_info info)
{
    napi_value argv[2];
    double until_ms;
    struct handle *handle = arguments(env, info, 2, argv);
    if (!handle)
        return NULL;
    if (napi_get_value_double(env, argv[1], &until_ms) != napi_ok || !(until_ms >= 0))
        return bad_arguments(env, "leaseSpeak(lease, until in ms)");
    uint64_t until = SPEAK_FREELY;
    if (until_ms * 1e6 < 9e18)
        until = until_ms < 1 ? SPEAK_NEVER : (uint64_t)(until_ms * 1e6);
    atomic_store(&handle->lease->speak_until, until);
    return NULL;
}

/* leaseSilenced(lease) -> how many packets came too late and were dropped. */
static napi_value silenced(napi_env env, napi_callback_info info)
{
    napi_value argv[1], result;
    struct handle *handle = arguments(env, info, 1, argv);
    if (!handle)
        return NULL;
    uint64_t count = atomic_load(&handle->lease->silenced);
    return napi_create_double(env, (double)count, &result) == napi_ok ? result : NULL;
}

/* speakNowMs() -> CLOCK_BOOTTIME. */
static napi_value speak_now(napi_env env, napi_callback_info info)
{
    napi_value result;
    (void)info;
    return napi_create_double(env, (double)speak_now_ns() / 1e6, &result) == napi_ok ? result : NULL;
}

/* leaseEnter(lease, held) -> whether `held` was in force; the caller has the lock of the file. */
static napi_value enter(napi_env env, napi_callback_info info)
{
    return change_held(env, info, lease_enter, "leaseEnter(lease, held)");
}

/* leaseLeave(lease, holdMs) -> the deadline that is in force from now on; before the lock is given back. */
static napi_value leave(napi_env env, napi_callback_info info)
{
    return hold_for(env, info, lease_leave, "leaseLeave(lease, holdMs up to 60000)");
}

/*
 * leaseMirrors(handle, names): the guest's writes wait for mirrors from now on, and the guard cuts them when this process stands
 * still. Names of nodes, each followed by NUL; none: there are no mirrors.
 */
static napi_value mirrors(napi_env env, napi_callback_info info)
{
    napi_value argv[2];
    size_t length;
    char names[LEASE_FILE_BYTES - LEASE_MIRRORS] = {0};
    struct handle *handle = arguments(env, info, 2, argv);
    if (!handle)
        return NULL;
    if (napi_get_value_string_utf8(env, argv[1], names, sizeof names - 1, &length) != napi_ok ||
        length >= sizeof names - 2) {
        napi_throw_type_error(env, NULL, "leaseMirrors(handle, names)");
        return NULL;
    }
    end_mirrors(handle);
    memcpy((char *)handle->lease + LEASE_MIRRORS, names, sizeof names);
    if (length == 0)
        return NULL;
    atomic_store(&handle->lease->mirrors_until, lease_now_ns() + LEASE_MIRRORS_NS);
    handle->mirrored = true;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&handle->mirrors, NULL, show_life, handle);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        handle->mirrored = false;
        atomic_store(&handle->lease->mirrors_until, 0);
        errno = error;
        return throw_errno(env, "leaseMirrors");
    }
    return NULL;
}

/* leaseMirrorsCut(handle) -> how often the guard has cut mirrors */
static napi_value mirrors_cut(napi_env env, napi_callback_info info)
{
    napi_value argv[1], count;
    struct handle *handle = arguments(env, info, 1, argv);
    if (!handle)
        return NULL;
    napi_create_double(env, (double)atomic_load(&handle->lease->mirrors_cut), &count);
    return count;
}

/* leaseFlushedUs(handle) -> microseconds that QEMU's flushes of disks have taken within pauses */
static napi_value flushed_us(napi_env env, napi_callback_info info)
{
    napi_value argv[1], us;
    struct handle *handle = arguments(env, info, 1, argv);
    if (!handle)
        return NULL;
    napi_create_double(env, (double)atomic_load(&handle->lease->flushed_ns) / 1000, &us);
    return us;
}

static napi_value lease_close(napi_env env, napi_callback_info info)
{
    napi_value argv[1];
    struct handle *handle = arguments(env, info, 1, argv);
    if (handle)
        unmap(handle);
    return NULL;
}

void subpage_register_lease(napi_env env, napi_value exports)
{
    napi_value free_word = bigint(env, LEASE_FREE), expired_word = bigint(env, LEASE_EXPIRED);
    napi_set_named_property(env, exports, "leaseLocked", bigint(env, LEASE_LOCKED));
    napi_set_named_property(env, exports, "leaseFree", free_word);
    napi_set_named_property(env, exports, "leaseExpired", expired_word);
    export_function(env, exports, "leaseOpen", lease_open);
    export_function(env, exports, "leaseTake", take);
    export_function(env, exports, "leaseRenew", renew);
    export_function(env, exports, "leaseClear", clear);
    export_function(env, exports, "leaseEnter", enter);
    export_function(env, exports, "leaseLeave", leave);
    export_function(env, exports, "leaseWord", word);
    export_function(env, exports, "leaseExpiries", expiries);
    export_function(env, exports, "leaseSpeak", speak);
    export_function(env, exports, "leaseSilenced", silenced);
    export_function(env, exports, "speakNowMs", speak_now);
    export_function(env, exports, "leaseMirrors", mirrors);
    export_function(env, exports, "leaseMirrorsCut", mirrors_cut);
    export_function(env, exports, "leaseFlushedUs", flushed_us);
    export_function(env, exports, "leaseClose", lease_close);
}
