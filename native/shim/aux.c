/*
 * Auxiliary RAM: what QEMU allocates beside the guest's RAM, such as video memory, firmware variables and ROMs. Each block
 * is appended to the RAM file when QEMU maps it, so that one file holds all memory of the guest, and what watches, sends,
 * keeps and shares guest RAM does so with these blocks too. QEMU makes them in one order for one command line, so a standby
 * has them at the same places. (QEMU 10 has an option for the half of it: aux-ram-share.)
 *
 * How it is known: QEMU reserves an address range, then maps anonymous memory at that fixed address (util/mmap-alloc.c).
 * Nothing else in QEMU does so, and the allocations of the C library do not pass here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../core/invariant.h"
#include "shim.h"

#define PAGE_BYTES 4096u

static int file = -1;

void aux_start(int ram_fd)
{
    int saved_errno = errno;
    if (file < 0)
        file = fcntl(ram_fd, F_DUPFD_CLOEXEC, 0);
    errno = saved_errno;
}

bool aux_is_block(size_t bytes, int protection, int flags, int fd)
{
    const int wanted = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    return fd == -1 && (flags & wanted) == wanted && protection == (PROT_READ | PROT_WRITE) && bytes > 0 &&
           bytes % PAGE_BYTES == 0;
}

static void *leave_out(struct shim_status *status, const char *step)
{
    if (!status->failure.error)
        status->failure = (struct uffd_failure){step, errno};
    return MAP_FAILED;
}

/*
 * Reserved now: a guest that finds no room later would be ended by SIGBUS. The limit that keeps QEMU's logs short is not for
 * memory; no guest runs yet.
 */
static bool reserve(off_t offset, off_t bytes)
{
    struct rlimit kept, none;
    bool limited = getrlimit(RLIMIT_FSIZE, &kept) == 0 && kept.rlim_cur != kept.rlim_max;
    none = (struct rlimit){kept.rlim_max, kept.rlim_max};
    if (limited)
        setrlimit(RLIMIT_FSIZE, &none);
    int error = fallocate(file, 0, offset, bytes) < 0 ? errno : 0;
    if (limited)
        setrlimit(RLIMIT_FSIZE, &kept);
    errno = error;
    return error == 0;
}

void *aux_map(struct shim_status *status, map_function map, void *address, size_t bytes, int protection, int flags,
              uint64_t *offset)
{
    struct stat ram;
    if (status->aux_count == AUX_BLOCKS_MAX) {
        errno = ENOSPC;
        return leave_out(status, "keeping so many blocks of memory");
    }
    if (fstat(file, &ram) < 0)
        return leave_out(status, "looking at the RAM file");
    SP_INVARIANT(ram.st_size > 0 && bytes % PAGE_BYTES == 0);
    *offset = ((uint64_t)ram.st_size + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    if (!reserve((off_t)*offset, (off_t)bytes))
        return leave_out(status, "reserving memory in the RAM file");
    int shared = (flags & ~(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)) | MAP_SHARED;
    void *mapped = map(address, bytes, protection, shared, file, (off_t)*offset);
    if (mapped == MAP_FAILED) {
        (void)leave_out(status, "mapping memory in the RAM file");
        if (ftruncate(file, ram.st_size) < 0)
            close(file), file = -1;
        return MAP_FAILED;
    }
    status->aux_bytes[status->aux_count++] = bytes;
    return mapped;
}
