/* Records of disks (native/disk/records.h): checked and applied, as the standby does; hashes of disks. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "../disk/journal.h"
#include "../disk/records.h"

static napi_value number(napi_env env, double value)
{
    napi_value result;
    return napi_create_double(env, value, &result) == napi_ok ? result : NULL;
}

static bool get_payload(napi_env env, napi_value payload, napi_value from, const uint8_t **records, size_t *bytes)
{
    uint8_t *data;
    uint64_t at;
    if (!subpage_get_bytes(env, payload, "payload", &data, bytes) || !subpage_get_uint(env, from, *bytes, "from", &at))
        return false;
    *records = data + at;
    *bytes -= (size_t)at;
    return true;
}

/* checkDisk(payload, from, diskBytes, results) → undefined | problem; results: records */
static napi_value check_call(napi_env env, napi_callback_info info)
{
    napi_value args[4], text;
    const uint8_t *records;
    size_t bytes;
    uint64_t disk_bytes, count;
    double *results;
    if (!subpage_args(env, info, 4, args) || !get_payload(env, args[0], args[1], &records, &bytes) ||
        !subpage_get_uint(env, args[2], INT64_MAX, "diskBytes", &disk_bytes) ||
        !subpage_get_results(env, args[3], 1, &results))
        return NULL;
    const char *problem = records_check(records, bytes, disk_bytes, &count);
    if (problem)
        return napi_create_string_utf8(env, problem, NAPI_AUTO_LENGTH, &text) == napi_ok ? text : NULL;
    results[0] = (double)count;
    return NULL;
}

struct disk_job {
    struct subpage_job job;
    int fd;
    const uint8_t *records;
    size_t bytes;
    uint64_t disk_bytes, first, count;
    uint8_t *out;
    int error;
};

static napi_value job_finish(napi_env env, struct subpage_job *job)
{
    return number(env, ((struct disk_job *)job)->error);
}

static napi_value job_start(napi_env env, struct disk_job *work, napi_value *args, size_t count, const char *name)
{
    work->job.finish = job_finish;
    return subpage_job_start(env, &work->job, args, count, name);
}

static bool get_fd(napi_env env, napi_value value, int *fd)
{
    uint64_t number;
    if (!subpage_get_uint(env, value, INT32_MAX, "fd", &number))
        return false;
    *fd = (int)number;
    return true;
}

static void apply_execute(struct subpage_job *job)
{
    struct disk_job *work = (struct disk_job *)job;
    work->error = records_apply(work->fd, work->records, work->bytes);
}

/* applyDisk(fd, payload, from) → promise of 0 or an errno */
static napi_value apply_call(napi_env env, napi_callback_info info)
{
    enum { ARGS = 3 };
    napi_value args[ARGS];
    struct disk_job *work;
    if (!subpage_args(env, info, ARGS, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    work->job.execute = apply_execute;
    if (get_fd(env, args[0], &work->fd) && get_payload(env, args[1], args[2], &work->records, &work->bytes))
        return job_start(env, work, args, ARGS, "subpage:applyDisk");
    subpage_job_drop(&work->job);
    return NULL;
}

static void sync_execute(struct subpage_job *job)
{
    struct disk_job *work = (struct disk_job *)job;
    work->error = fdatasync(work->fd) < 0 ? errno : 0;
}

/* A job that needs no more than the file. */
static napi_value file_call(napi_env env, napi_callback_info info, void (*execute)(struct subpage_job *), const char *name)
{
    napi_value args[1];
    struct disk_job *work;
    if (!subpage_args(env, info, 1, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    work->job.execute = execute;
    if (get_fd(env, args[0], &work->fd))
        return job_start(env, work, args, 1, name);
    subpage_job_drop(&work->job);
    return NULL;
}

/* syncDisk(fd) → promise of 0 or an errno */
static napi_value sync_call(napi_env env, napi_callback_info info)
{
    return file_call(env, info, sync_execute, "subpage:syncDisk");
}

static void write_back_execute(struct subpage_job *job)
{
    struct disk_job *work = (struct disk_job *)job;
    work->error = sync_file_range(work->fd, 0, 0, SYNC_FILE_RANGE_WRITE) < 0 ? errno : 0;
}

/* writeBackDisk(fd) → promise of 0 or an errno */
static napi_value write_back_call(napi_env env, napi_callback_info info)
{
    return file_call(env, info, write_back_execute, "subpage:writeBackDisk");
}

static void hash_execute(struct subpage_job *job)
{
    struct disk_job *work = (struct disk_job *)job;
    work->error = records_hash(work->fd, work->disk_bytes, work->first, work->count, work->out);
}

static bool hash_arguments(napi_env env, napi_value *args, struct disk_job *work)
{
    size_t room;
    if (!get_fd(env, args[0], &work->fd) ||
        !subpage_get_uint(env, args[1], INT64_MAX - JOURNAL_CHUNK_BYTES, "diskBytes", &work->disk_bytes))
        return false;
    uint64_t chunks = (work->disk_bytes + JOURNAL_CHUNK_BYTES - 1) / JOURNAL_CHUNK_BYTES;
    if (!subpage_get_uint(env, args[2], chunks, "first", &work->first) ||
        !subpage_get_uint(env, args[3], chunks - work->first, "count", &work->count) ||
        !subpage_get_bytes(env, args[4], "out", &work->out, &room))
        return false;
    if (room == work->count * JOURNAL_HASH_BYTES)
        return true;
    napi_throw_type_error(env, NULL, "out must have 16 bytes for each chunk");
    return false;
}

/* hashDisk(fd, diskBytes, first, count, out) → promise of 0 or an errno; chunks of the disk */
static napi_value hash_call(napi_env env, napi_callback_info info)
{
    enum { ARGS = 5 };
    napi_value args[ARGS];
    struct disk_job *work;
    if (!subpage_args(env, info, ARGS, args) || !(work = subpage_job_new(env, sizeof *work)))
        return NULL;
    work->job.execute = hash_execute;
    if (hash_arguments(env, args, work))
        return job_start(env, work, args, ARGS, "subpage:hashDisk");
    subpage_job_drop(&work->job);
    return NULL;
}

/* hashChunks(bytes, out): of what has been read of a disk, from a chunk's beginning on */
static napi_value hash_chunks_call(napi_env env, napi_callback_info info)
{
    enum { ARGS = 2 };
    napi_value args[ARGS];
    uint8_t *bytes, *out;
    size_t length, room;
    if (!subpage_args(env, info, ARGS, args) || !subpage_get_bytes(env, args[0], "bytes", &bytes, &length) ||
        !subpage_get_bytes(env, args[1], "out", &out, &room))
        return NULL;
    if (room != (length / JOURNAL_CHUNK_BYTES + (length % JOURNAL_CHUNK_BYTES != 0)) * JOURNAL_HASH_BYTES)
        napi_throw_type_error(env, NULL, "out must have 16 bytes for each chunk");
    else
        records_hash_bytes(bytes, length, out);
    return NULL;
}

void subpage_register_disk_records(napi_env env, napi_value exports)
{
    export_function(env, exports, "checkDisk", check_call);
    export_function(env, exports, "applyDisk", apply_call);
    export_function(env, exports, "syncDisk", sync_call);
    export_function(env, exports, "writeBackDisk", write_back_call);
    export_function(env, exports, "hashDisk", hash_call);
    export_function(env, exports, "hashChunks", hash_chunks_call);
}
