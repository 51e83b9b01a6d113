/* The endpoint that a disk is mirrored into (native/disk): a journal and its server behind one handle. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../core/invariant.h"
#include "../disk/journal.h"
#include "../disk/nbd.h"

enum { PATH_ROOM = 4096, STATS = 15 };

static const napi_type_tag disk_tag = {0x3d9e51c08b7742af, 0xa614f2d90c3be587};

struct disk {
    struct journal *journal; /* NULL once closed */
    struct nbd_server *server;
    uint64_t bytes;
    struct chunk_map *map; /* NULL: there is none */
    size_t map_bytes;
    bool spills;
};

static void release(struct disk *disk)
{
    if (disk->server)
        nbd_end(disk->server);
    if (disk->journal)
        journal_free(disk->journal);
    if (disk->map)
        munmap(disk->map, disk->map_bytes);
    disk->server = NULL;
    disk->map = NULL;
    disk->journal = NULL;
}

static void finalize(napi_env env, void *data, void *hint)
{
    (void)env;
    (void)hint;
    release(data);
    free(data);
}

static struct disk *unwrap(napi_env env, napi_value value)
{
    bool ours = false;
    void *disk = NULL;
    if (napi_check_object_type_tag(env, value, &disk_tag, &ours) == napi_ok && ours &&
        napi_unwrap(env, value, &disk) == napi_ok)
        return disk;
    napi_throw_type_error(env, NULL, "not an endpoint of a disk");
    return NULL;
}

/* NULL with a TypeError pending when it is none, or closed. */
static struct disk *disk_get(napi_env env, napi_value value)
{
    struct disk *disk = unwrap(env, value);
    if (disk && !disk->journal) {
        napi_throw_type_error(env, NULL, "the endpoint of the disk is closed");
        return NULL;
    }
    return disk;
}

static struct disk *disk_argument(napi_env env, napi_callback_info info)
{
    napi_value args[1];
    return subpage_args(env, info, 1, args) ? disk_get(env, args[0]) : NULL;
}

static napi_value wrap(napi_env env, struct disk *disk)
{
    napi_value object;
    if (napi_create_object(env, &object) != napi_ok || napi_wrap(env, object, disk, finalize, NULL, NULL) != napi_ok) {
        release(disk);
        free(disk);
        return NULL;
    }
    return napi_type_tag_object(env, object, &disk_tag) == napi_ok ? object : NULL;
}

static bool get_path(napi_env env, napi_value value, char path[PATH_ROOM])
{
    size_t length;
    if (napi_get_value_string_utf8(env, value, path, PATH_ROOM, &length) == napi_ok && strlen(path) == length)
        return true;
    napi_throw_type_error(env, NULL, "path must be a string");
    return false;
}

/* diskOpen(path, bytes, journalBytesMax) → handle. Throws with the name of the errno. */
static napi_value open_call(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    char path[PATH_ROOM];
    uint64_t bytes, bytes_max;
    if (!subpage_args(env, info, 3, args) || !get_path(env, args[0], path) ||
        !subpage_get_uint(env, args[1], INT64_MAX - JOURNAL_CHUNK_BYTES, "bytes", &bytes) ||
        !subpage_get_uint(env, args[2], INT64_MAX, "journalBytesMax", &bytes_max))
        return NULL;
    struct disk *disk = calloc(1, sizeof *disk);
    if (disk)
        disk->bytes = bytes;
    if (disk && (disk->journal = journal_new(bytes, bytes_max)) &&
        (disk->server = nbd_serve(path, bytes, disk->journal)))
        return wrap(env, disk);
    int error = errno;
    if (disk)
        release(disk);
    free(disk);
    errno = error;
    return throw_errno(env, path);
}

/* diskClose(disk): idempotent; waits for the thread, which ends at once */
static napi_value close_call(napi_env env, napi_callback_info info)
{
    napi_value args[1];
    struct disk *disk;
    if (subpage_args(env, info, 1, args) && (disk = unwrap(env, args[0])))
        release(disk);
    return NULL;
}

/* diskKnow(disk, hashes): 16 bytes for each chunk, or none: nothing is known */
static napi_value know_call(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    struct disk *disk;
    uint8_t *hashes;
    size_t bytes;
    if (!subpage_args(env, info, 2, args) || !(disk = disk_get(env, args[0])) ||
        !subpage_get_bytes(env, args[1], "hashes", &hashes, &bytes))
        return NULL;
    int error = journal_know(disk->journal, hashes, bytes);
    if (error == EINVAL) {
        napi_throw_type_error(env, NULL, "hashes must have 16 bytes for each chunk of the disk");
    } else if (error) {
        errno = error;
        return throw_errno(env, "diskKnow");
    }
    return NULL;
}

/* diskWatch(disk, path, marks): of the map, to be marked here, or in which all that is written from now on is marked already. Throws with the name of the errno. */
static napi_value watch_call(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    bool marks;
    char path[PATH_ROOM];
    struct disk *disk;
    if (!subpage_args(env, info, 3, args) || !(disk = disk_get(env, args[0])) || !get_path(env, args[1], path) ||
        !subpage_get_bool(env, args[2], "marks", &marks))
        return NULL;
    if (!disk->map && !(disk->map = chunk_map_open(path, &disk->map_bytes)))
        return throw_errno(env, path);
    if (disk->map->disk_bytes != disk->bytes)
        napi_throw_type_error(env, NULL, "the map is that of another disk");
    else
        journal_watch(disk->journal, disk->map, marks);
    return NULL;
}

/* diskSpill(disk, fd, bytesMax): once; the descriptor stays the caller's. Throws with the name of the errno. */
static napi_value spill_call(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    struct disk *disk;
    uint64_t fd, bytes_max;
    if (!subpage_args(env, info, 3, args) || !(disk = disk_get(env, args[0])) ||
        !subpage_get_uint(env, args[1], INT32_MAX, "fd", &fd) ||
        !subpage_get_uint(env, args[2], INT64_MAX, "bytesMax", &bytes_max))
        return NULL;
    if (disk->spills) {
        napi_throw_type_error(env, NULL, "the endpoint has a file to spill to");
        return NULL;
    }
    int own = fcntl((int)fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return throw_errno(env, "diskSpill");
    int error = journal_spill(disk->journal, own, bytes_max);
    if (error) {
        close(own);
        errno = error;
        return throw_errno(env, "diskSpill");
    }
    disk->spills = true;
    return NULL;
}

/* diskBeginFill(disk, chunk, count): they are going to be read */
static napi_value begin_fill_call(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    struct disk *disk;
    uint64_t chunk, count;
    if (!subpage_args(env, info, 3, args) || !(disk = disk_get(env, args[0])) ||
        !subpage_get_uint(env, args[1], journal_chunks(disk->journal), "chunk", &chunk) ||
        !subpage_get_uint(env, args[2], journal_chunks(disk->journal) - chunk, "count", &count))
        return NULL;
    if (count > JOURNAL_FILL_CHUNKS) {
        napi_throw_type_error(env, NULL, "too many chunks at a time");
        return NULL;
    }
    errno = journal_begin_fill(disk->journal, chunk, (uint32_t)count);
    return errno ? throw_errno(env, "diskBeginFill") : NULL;
}

/* diskFill(disk, chunk, data) → bits of chunks to be read again, or 1 << 16: no room yet */
static napi_value fill_call(napi_env env, napi_callback_info info)
{
    napi_value args[3], result;
    struct disk *disk;
    uint64_t chunk;
    uint8_t *data;
    size_t bytes;
    if (!subpage_args(env, info, 3, args) || !(disk = disk_get(env, args[0])) ||
        !subpage_get_uint(env, args[1], journal_chunks(disk->journal), "chunk", &chunk) ||
        !subpage_get_bytes(env, args[2], "data", &data, &bytes))
        return NULL;
    uint64_t offset = chunk * JOURNAL_CHUNK_BYTES, left = offset < disk->bytes ? disk->bytes - offset : 0;
    if (bytes > JOURNAL_FILL_CHUNKS * JOURNAL_CHUNK_BYTES || bytes > left ||
        (bytes % JOURNAL_CHUNK_BYTES != 0 && bytes != left)) {
        napi_throw_type_error(env, NULL, "data must be whole chunks of the disk");
        return NULL;
    }
    int again = journal_fill(disk->journal, chunk, data, (uint32_t)bytes);
    if (again < 0) {
        errno = -again;
        return throw_errno(env, "diskFill");
    }
    return napi_create_int32(env, again, &result) == napi_ok ? result : NULL;
}

static napi_value record_call(napi_env env, napi_callback_info info)
{
    struct disk *disk = disk_argument(env, info);
    if (disk)
        journal_record(disk->journal);
    return NULL;
}

static napi_value drop_call(napi_env env, napi_callback_info info)
{
    struct disk *disk = disk_argument(env, info);
    if (disk)
        journal_drop(disk->journal);
    return NULL;
}

static napi_value seal_call(napi_env env, napi_callback_info info)
{
    struct disk *disk = disk_argument(env, info);
    if (disk)
        journal_seal(disk->journal);
    return NULL;
}

static napi_value unseal_call(napi_env env, napi_callback_info info)
{
    struct disk *disk = disk_argument(env, info);
    if (disk)
        journal_unseal(disk->journal);
    return NULL;
}

static napi_value number(napi_env env, double value)
{
    napi_value result;
    return napi_create_double(env, value, &result) == napi_ok ? result : NULL;
}

/* diskTake(disk, into, sealed) → bytes used; 0: the list is empty. Throws with the name of the errno. */
static napi_value take_call(napi_env env, napi_callback_info info)
{
    napi_value args[3];
    struct disk *disk;
    uint8_t *into;
    size_t room;
    bool sealed;
    if (!subpage_args(env, info, 3, args) || !(disk = disk_get(env, args[0])) ||
        !subpage_get_bytes(env, args[1], "into", &into, &room) || !subpage_get_bool(env, args[2], "sealed", &sealed))
        return NULL;
    if (room < JOURNAL_TAKE_BYTES_MIN) {
        napi_throw_type_error(env, NULL, "into has no room for a record");
        return NULL;
    }
    ssize_t used = journal_take(disk->journal, into, room, sealed);
    if (used >= 0)
        return number(env, (double)used);
    errno = (int)-used;
    return throw_errno(env, "diskTake");
}

/* diskStats(disk, results) */
static napi_value stats_call(napi_env env, napi_callback_info info)
{
    napi_value args[2];
    struct disk *disk;
    double *results;
    if (!subpage_args(env, info, 2, args) || !(disk = disk_get(env, args[0])) ||
        !subpage_get_results(env, args[1], STATS, &results))
        return NULL;
    struct journal_stats journal;
    struct nbd_stats server;
    journal_read_stats(disk->journal, &journal);
    nbd_read_stats(disk->server, &server);
    const double values[STATS] = {
        (double)server.connected,       (double)server.connections, (double)journal.current_bytes,
        (double)journal.sealed_bytes,   (double)journal.writes,     (double)journal.written_bytes,
        (double)journal.equal_bytes,    (double)journal.zero_bytes, (double)server.flushes,
        (double)journal.waiting_ms,     (double)journal.recording,  (double)server.requests,
        (double)journal.spilled_bytes,  (double)journal.spilled_total,
        (double)journal.error,
    };
    memcpy(results, values, sizeof values);
    return NULL;
}

void subpage_register_disk(napi_env env, napi_value exports)
{
    export_function(env, exports, "diskOpen", open_call);
    export_function(env, exports, "diskClose", close_call);
    export_function(env, exports, "diskKnow", know_call);
    export_function(env, exports, "diskWatch", watch_call);
    export_function(env, exports, "diskSpill", spill_call);
    export_function(env, exports, "diskBeginFill", begin_fill_call);
    export_function(env, exports, "diskFill", fill_call);
    export_function(env, exports, "diskRecord", record_call);
    export_function(env, exports, "diskDrop", drop_call);
    export_function(env, exports, "diskSeal", seal_call);
    export_function(env, exports, "diskUnseal", unseal_call);
    export_function(env, exports, "diskTake", take_call);
    export_function(env, exports, "diskStats", stats_call);
}
