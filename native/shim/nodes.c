/*
 * RAM of several NUMA nodes. QEMU allocates the memory of each node for itself, as anonymous memory; here it is put into the
 * RAM file, one node behind the other, so that all of the guest's RAM is one piece for whoever watches, sends and keeps it.
 *
 * QEMU makes these backends in the order of its command line, and before all other memory of the machine (checked on 7.2 and
 * 10.0). A block of another size than the next node's is not a node's, and stays where QEMU has it. Callers hold the shim's lock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../core/invariant.h"
#include "shim.h"

static size_t sizes[NODES_MAX];
static unsigned count, placed;
static uint64_t end;

void nodes_start(const char *list)
{
    for (const char *rest = list; *rest && count < NODES_MAX;) {
        char *next;
        errno = 0;
        unsigned long long bytes = strtoull(rest, &next, 10);
        if (errno != 0 || next == rest || bytes == 0)
            break;
        sizes[count++] = bytes;
        rest = *next == ',' ? next + 1 : next;
    }
}

bool nodes_is_next(size_t bytes)
{
    return placed < count && sizes[placed] == bytes;
}

/* Those of a node, from the first to the last byte. */
static struct {
    uintptr_t address;
    size_t bytes;
    uint64_t offset;
} blocks[NODES_MAX];

int nodes_map(struct shim_status *status, map_function map, const char *path, void *address, size_t bytes, int protection,
              uint64_t *offset)
{
    SP_INVARIANT(nodes_is_next(bytes));
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || map(address, bytes, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, (off_t)end) == MAP_FAILED) {
        status->failure = (struct uffd_failure){"mapping a node's memory in the RAM file", errno};
        if (fd >= 0)
            close(fd);
        count = placed;
        return -1;
    }
    blocks[placed].address = (uintptr_t)address;
    blocks[placed].bytes = bytes;
    blocks[placed].offset = *offset = end;
    end += bytes;
    status->node_count = ++placed;
    return fd;
}

bool nodes_cover(const void *address, size_t bytes, uint64_t *offset)
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
