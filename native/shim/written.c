/* See written.h. */
#define _GNU_SOURCE
#include "written.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../disk/chunk_map.h"

enum { MAPS_MAX = 16 };

static struct chunk_map *maps[MAPS_MAX];
static _Atomic unsigned maps_count;

void written_start(char *paths)
{
    char *path;
    unsigned count = 0;
    while (count < MAPS_MAX && (path = strsep(&paths, "\n")) != NULL) {
        size_t bytes;
        struct chunk_map *map = *path ? chunk_map_open(path, &bytes) : NULL;
        /* One that cannot be opened says by its `writer` that nobody marks it. */
        if (!map)
            continue;
        atomic_store(&map->writer, (uint32_t)getpid());
        maps[count++] = map;
    }
    atomic_store(&maps_count, count);
}

void written_mark(int fd, int64_t offset, uint64_t bytes)
{
    struct stat status;
    unsigned count = atomic_load(&maps_count);
    if (count == 0 || fd < 0 || offset < 0)
        return;
    int saved_errno = errno;
    /* A descriptor may be another file's by now, so it is looked at each time. */
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        for (unsigned n = 0; n < count; n++)
            if (maps[n]->inode == status.st_ino && maps[n]->device == status.st_dev)
                chunk_map_mark(maps[n], (uint64_t)offset, bytes);
    errno = saved_errno;
}

static uint64_t length_of(const struct iovec *parts, int count)
{
    uint64_t bytes = 0;
    for (int n = 0; n < count; n++)
        bytes += parts[n].iov_len;
    return bytes;
}

/* ---- the wrappers. The calls go to the kernel by themselves: there may be no other definition of such a name. */

#define EXPORTED __attribute__((visibility("default")))

static void *next(const char *name, void *_Atomic *found)
{
    void *function = atomic_load(found);
    if (!function) {
        function = dlsym(RTLD_NEXT, name);
        atomic_store(found, function);
    }
    return function;
}

typedef ssize_t (*pwrite_function)(int, const void *, size_t, off_t);
typedef ssize_t (*pwritev_function)(int, const struct iovec *, int, off_t);
typedef ssize_t (*pwritev2_function)(int, const struct iovec *, int, off_t, int);
typedef ssize_t (*copy_function)(int, off_t *, int, off_t *, size_t, unsigned);

static ssize_t write_at(int fd, const void *from, size_t bytes, off_t offset)
{
    static void *_Atomic found;
    written_mark(fd, offset, bytes);
    return ((pwrite_function)next("pwrite64", &found))(fd, from, bytes, offset);
}

static ssize_t write_parts(int fd, const struct iovec *parts, int count, off_t offset)
{
    static void *_Atomic found;
    written_mark(fd, offset, length_of(parts, count));
    return ((pwritev_function)next("pwritev64", &found))(fd, parts, count, offset);
}

static ssize_t write_parts2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    static void *_Atomic found;
    written_mark(fd, offset, length_of(parts, count));
    return ((pwritev2_function)next("pwritev64v2", &found))(fd, parts, count, offset, flags);
}

EXPORTED ssize_t pwrite(int fd, const void *from, size_t bytes, off_t offset)
{
    return write_at(fd, from, bytes, offset);
}

EXPORTED ssize_t pwrite64(int fd, const void *from, size_t bytes, off_t offset)
{
    return write_at(fd, from, bytes, offset);
}

EXPORTED ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    return write_parts(fd, parts, count, offset);
}

EXPORTED ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
{
    return write_parts(fd, parts, count, offset);
}

EXPORTED ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    return write_parts2(fd, parts, count, offset, flags);
}

EXPORTED ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    return write_parts2(fd, parts, count, offset, flags);
}

EXPORTED ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t bytes, unsigned flags)
{
    static void *_Atomic found;
    if (to_offset)
        written_mark(to, *to_offset, bytes);
    return ((copy_function)next("copy_file_range", &found))(from, from_offset, to, to_offset, bytes, flags);
}
