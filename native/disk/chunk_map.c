/* See chunk_map.h. */
#define _GNU_SOURCE
#include "chunk_map.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct chunk_map *chunk_map_open(const char *path, size_t *bytes)
{
    struct stat status;
    struct chunk_map *map = MAP_FAILED;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > CHUNK_MAP_HEAD_BYTES)
        map = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    else
        errno = EINVAL;
    int error = errno;
    close(fd);
    errno = error;
    if (map == MAP_FAILED)
        return NULL;
    *bytes = (size_t)status.st_size;
    if (map->magic == CHUNK_MAP_MAGIC && chunk_map_bytes(map->disk_bytes) == *bytes)
        return map;
    munmap(map, *bytes);
    errno = EINVAL;
    return NULL;
}
