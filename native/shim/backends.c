/*
 * RAM of several memory backends: NUMA nodes, and memory devices (pc-dimm) that are there from the start. QEMU allocates each for
 * itself, as anonymous memory; here it is put into the RAM file, one behind the other, so that all of the guest's RAM is one piece for
 * whoever watches, sends and keeps it.
 *
 * QEMU makes these backends in the order of its command line, and before all other memory of the machine (checked on 7.2 and
 * 10.0). A block of another size than the next backend's is none, and stays where QEMU has it. Callers hold the shim's lock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../core/invariant.h"
#include "shim.h"

static size_t sizes[BACKENDS_MAX];
static unsigned count, placed;
static uint64_t end;

void backends_start(const char *list)
{
    for (const char *rest = list; *rest && count < BACKENDS_MAX;) {
        char *next;
        errno = 0;
        unsigned long long bytes = strtoull(rest, &next, 10);
        if (errno != 0 || next == rest || bytes == 0)
            break;
        sizes[count++] = bytes;
        rest = *next == ',' ? next + 1 : next;
    }
}

bool backends_is_next(size_t bytes)
{
    return placed < count && sizes[placed] == bytes;
}

/* From the first to the last byte; one that was unmapped has none. */
static struct {
    uintptr_t address;
    size_t bytes;
    uint64_t offset;
} blocks[BACKENDS_MAX];

int backends_map(struct shim_status *status, map_function map, const char *path, void *address, size_t bytes, int protection,
              uint64_t *offset)
{
    SP_INVARIANT(backends_is_next(bytes));
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || map(address, bytes, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, (off_t)end) == MAP_FAILED) {
        status->failure = (struct uffd_failure){"mapping a memory backend in the RAM file", errno};
        if (fd >= 0)
            close(fd);
        count = placed;
        return -1;
    }
    blocks[placed].address = (uintptr_t)address;
    blocks[placed].bytes = bytes;
    blocks[placed].offset = *offset = end;
    end += bytes;
    placed++;
    status->backend_count++;
    return fd;
}

bool backends_cover(const void *address, size_t bytes, uint64_t *offset)
{
    for (unsigned n = 0; n < placed; n++) {
        uintptr_t from = (uintptr_t)address - blocks[n].address;
        if ((uintptr_t)address < blocks[n].address || from >= blocks[n].bytes || bytes > blocks[n].bytes - from)
            continue;
        *offset = blocks[n].offset + from;
        return true;
    }
    return false;
}

bool backends_unmapped(struct shim_status *status, const void *address, size_t bytes)
{
    uintptr_t start = (uintptr_t)address;
    bool any = false;
    for (unsigned n = 0; n < placed; n++) {
        if (blocks[n].bytes == 0 || start >= blocks[n].address + blocks[n].bytes || blocks[n].address >= start + bytes)
            continue;
        SP_INVARIANT(status->backend_count > 0);
        blocks[n].bytes = 0;
        status->backend_count--;
        status->unplugged_count++;
        any = true;
    }
    return any;
}
