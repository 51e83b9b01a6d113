/* Regions: files and anonymous memory mapped for as long as a handle is open. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "addon.h"

#include "../core/invariant.h"

static const napi_type_tag region_tag = {0x5b7a3f6e2c1d4980, 0x91e04c55a8d2b37f};

/*
 * Anonymous memory is kept by its handle alone, so the collector is told; not told, it leaves handles that nobody closed
 * lying about for long. Mapped files are somebody else's memory.
 */
static void tell_collector(const struct subpage_region *region, int sign)
{
    int64_t total;
    if (region->env && region->fd < 0 && region->address)
        napi_adjust_external_memory(region->env, sign * (int64_t)region->bytes, &total);
}

static void unmap(struct subpage_region *region)
{
    tell_collector(region, -1);
    if (region->address)
        munmap(region->address, region->bytes);
    if (region->fd >= 0)
        close(region->fd);
    region->address = NULL;
    region->fd = -1;
}

void subpage_region_hold(struct subpage_region *region)
{
    region->users++;
}

void subpage_region_release(struct subpage_region *region)
{
    SP_INVARIANT(region->users > 0 && region->address);
    if (--region->users == 0 && region->closed)
        unmap(region);
}

static void region_close(struct subpage_region *region)
{
    region->closed = true;
    if (region->users == 0)
        unmap(region);
}

/* The handle is unreachable: no operation runs, because a running one keeps its handles reachable. */
static void finalize(napi_env env, void *data, void *hint)
{
    (void)env;
    (void)hint;
    struct subpage_region *region = data;
    SP_INVARIANT(region->users == 0);
    unmap(region);
    free(region);
}

static struct subpage_region *unwrap(napi_env env, napi_value handle)
{
    bool tagged = false;
    void *region = NULL;
    if (napi_check_object_type_tag(env, handle, &region_tag, &tagged) != napi_ok || !tagged ||
        napi_unwrap(env, handle, &region) != napi_ok) {
        napi_throw_type_error(env, NULL, "not a region");
        return NULL;
    }
    return region;
}

struct subpage_region *subpage_region_get(napi_env env, napi_value handle, bool writable)
{
    struct subpage_region *region = unwrap(env, handle);
    if (!region)
        return NULL;
    if (region->closed) {
        napi_throw_type_error(env, NULL, "the region is closed");
        return NULL;
    }
    if (writable && !region->writable) {
        napi_throw_type_error(env, NULL, "the region is mapped read-only");
        return NULL;
    }
    return region;
}

/* Takes ownership of what `made` holds, also when it fails. */
static napi_value wrap(napi_env env, struct subpage_region made)
{
    napi_value handle;
    struct subpage_region *region = malloc(sizeof *region);
    if (region) {
        *region = made;
        region->env = env;
        tell_collector(region, 1);
        if (napi_create_object(env, &handle) == napi_ok &&
            napi_wrap(env, handle, region, finalize, NULL, NULL) == napi_ok) {
            if (napi_type_tag_object(env, handle, &region_tag) == napi_ok)
                return handle;
            return NULL; /* the finalizer cleans up */
        }
        tell_collector(region, -1);
        free(region);
    }
    unmap(&made);
    napi_throw_error(env, "ENOMEM", "cannot make a region");
    return NULL;
}

/* Reserves every block now, so that a full tmpfs is an error here and not a SIGBUS at some later write. */
static int reserve(int fd, uint64_t bytes)
{
    if (ftruncate(fd, (off_t)bytes) < 0)
        return errno;
    return posix_fallocate(fd, 0, (off_t)bytes);
}

static bool get_path(napi_env env, napi_value value, char path[PATH_MAX])
{
    size_t length;
    if (napi_get_value_string_utf8(env, value, path, PATH_MAX, &length) == napi_ok && length + 1 < PATH_MAX &&
        strlen(path) == length)
        return true;
    napi_throw_type_error(env, NULL, "path must be a string");
    return false;
}

struct reserve_job {
    struct subpage_job job;
    char path[PATH_MAX];
    uint64_t bytes;
    int error;
};

static void reserve_execute(struct subpage_job *base)
{
    struct reserve_job *job = (struct reserve_job *)base;
    int fd = open(job->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        job->error = errno;
        return;
    }
    job->error = reserve(fd, job->bytes);
    if (job->error)
        unlink(job->path);
    close(fd);
}

static napi_value reserve_finish(napi_env env, struct subpage_job *base)
{
    napi_value error;
    napi_create_int32(env, ((struct reserve_job *)base)->error, &error);
    return error;
}

/* reserveFile(path, bytes) -> promise of 0, or of an errno. Makes the file, mode 0600, with all its room: 0.3 s a GiB of memory. */
static napi_value reserve_file(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    if (!subpage_args(env, info, 2, args))
        return NULL;
    struct reserve_job *job = subpage_job_new(env, sizeof *job);
    if (!job)
        return NULL;
    if (!get_path(env, args[0], job->path) || !subpage_get_uint(env, args[1], INT64_MAX, "bytes", &job->bytes)) {
        subpage_job_drop(&job->job);
        return NULL;
    }
    job->job.execute = reserve_execute;
    job->job.finish = reserve_finish;
    return subpage_job_start(env, &job->job, args, 2, "subpage.reserveFile");
}

/* Opens the file; on success `*bytes` is its size. Returns 0 or an errno. */
static int open_file(const char *path, bool writable, int *fd, size_t *bytes)
{
    struct stat status;
    *fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (*fd < 0)
        return errno;
    int error = 0;
    if (fstat(*fd, &status) < 0)
        error = errno;
    else if (!S_ISREG(status.st_mode) || status.st_size == 0 || status.st_size % SP_PAGE_BYTES != 0)
        error = EINVAL;
    if (error)
        close(*fd);
    else
        *bytes = (size_t)status.st_size;
    return error;
}

/* regionMap(path, writable, bytes) → handle; the first bytes of the file, or, with 0, all. */
static napi_value region_map(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    char path[PATH_MAX];
    bool writable;
    uint64_t wanted;
    if (!subpage_args(env, info, 3, args) || !subpage_get_bool(env, args[1], "writable", &writable) ||
        !subpage_get_uint(env, args[2], INT64_MAX, "bytes", &wanted) || !get_path(env, args[0], path))
        return NULL;
    struct subpage_region region = {.fd = -1, .writable = writable};
    int error = open_file(path, writable, &region.fd, &region.bytes);
    if (!error && (wanted > region.bytes || wanted % SP_PAGE_BYTES != 0)) {
        close(region.fd);
        error = EINVAL;
    }
    if (!error && wanted > 0)
        region.bytes = wanted;
    if (error) {
        errno = error;
        return throw_errno(env, path);
    }
    void *address =
        mmap(NULL, region.bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, region.fd, 0);
    if (address == MAP_FAILED) {
        error = errno;
        close(region.fd);
        errno = error;
        return throw_errno(env, path);
    }
    region.address = address;
    return wrap(env, region);
}

/* regionAnonymous(bytes) → handle */
static napi_value region_anonymous(napi_env env, napi_callback_info info)
{
    napi_value args[1];
    uint64_t bytes;
    if (!subpage_args(env, info, 1, args) || !subpage_get_uint(env, args[0], INT64_MAX, "bytes", &bytes))
        return NULL;
    /*
     * Regions may be as large as this host's memory and hold little. Were they accounted for, one that the kernel has
     * merged with a neighbour would be more than there can be, and fork(2) would fail (vm.overcommit_memory, proc(5)).
     */
    void *address =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED)
        return throw_errno(env, "anonymous memory");
    return wrap(env, (struct subpage_region){.address = address, .bytes = bytes, .fd = -1, .writable = true});
}

/* regionBytes(handle) → number */
static napi_value region_bytes(napi_env env, napi_callback_info info)
{
    napi_value args[1], result;
    if (!subpage_args(env, info, 1, args))
        return NULL;
    struct subpage_region *region = unwrap(env, args[0]);
    if (!region || napi_create_double(env, (double)region->bytes, &result) != napi_ok)
        return NULL;
    return result;
}

/* Both copies: checks (handle, offset, bytes) and returns where in the region, with the bytes of JavaScript. */
static uint8_t *copy_target(napi_env env, napi_callback_info info, bool writable, uint8_t **data, size_t *bytes)
{
    napi_value args[3];
    uint64_t offset;
    if (!subpage_args(env, info, 3, args))
        return NULL;
    struct subpage_region *region = subpage_region_get(env, args[0], writable);
    if (!region || !subpage_get_uint(env, args[1], region->bytes, "offset", &offset) ||
        !subpage_get_bytes(env, args[2], "data", data, bytes))
        return NULL;
    if (*bytes > region->bytes - offset) {
        napi_throw_range_error(env, NULL, "the data reach beyond the end of the region");
        return NULL;
    }
    SP_INVARIANT(region->address && offset + *bytes <= region->bytes);
    return region->address + offset;
}

/* regionRead(handle, offset, into: Uint8Array) */
static napi_value region_read(napi_env env, napi_callback_info info)
{
    uint8_t *data;
    size_t bytes;
    uint8_t *at = copy_target(env, info, false, &data, &bytes);
    if (at && bytes > 0)
        memcpy(data, at, bytes);
    return NULL;
}

/* regionWrite(handle, offset, from: Uint8Array) */
static napi_value region_write(napi_env env, napi_callback_info info)
{
    uint8_t *data;
    size_t bytes;
    uint8_t *at = copy_target(env, info, true, &data, &bytes);
    if (at && bytes > 0)
        memcpy(at, data, bytes);
    return NULL;
}

/* regionClose(handle): idempotent; deferred while operations run */
static napi_value region_close_handle(napi_env env, napi_callback_info info)
{
    napi_value args[1];
    if (!subpage_args(env, info, 1, args))
        return NULL;
    struct subpage_region *region = unwrap(env, args[0]);
    if (region && !region->closed)
        region_close(region);
    return NULL;
}

void subpage_register_region(napi_env env, napi_value exports)
{
    export_function(env, exports, "reserveFile", reserve_file);
    export_function(env, exports, "regionMap", region_map);
    export_function(env, exports, "regionAnonymous", region_anonymous);
    export_function(env, exports, "regionBytes", region_bytes);
    export_function(env, exports, "regionRead", region_read);
    export_function(env, exports, "regionWrite", region_write);
    export_function(env, exports, "regionClose", region_close_handle);
}
