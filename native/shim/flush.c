/*
 * Measures what QEMU's flushes of disks take of a pause: `stop` ends with an fdatasync(2) of each disk that was written to, in a
 * thread of QEMU's pool, which nobody outside can tell from the rest of the pause.
 */
#define _GNU_SOURCE
#include "flush.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lease.h"

typedef int (*fdatasync_function)(int);

static _Atomic(struct lease *) watched;

void flush_start(struct lease *lease)
{
    atomic_store(&watched, lease);
}

static int next_fdatasync(int fd)
{
    static _Atomic(fdatasync_function) next;
    fdatasync_function found = atomic_load(&next);
    if (!found) {
        found = (fdatasync_function)dlsym(RTLD_NEXT, "fdatasync");
        atomic_store(&next, found);
    }
    return found ? found(fd) : (int)syscall(SYS_fdatasync, fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    struct lease *lease = atomic_load(&watched);
    if (!lease || !lease_is_deadline(atomic_load(&lease->word)))
        return next_fdatasync(fd);
    uint64_t from = lease_now_ns();
    int result = next_fdatasync(fd);
    atomic_fetch_add(&lease->flushed_ns, lease_now_ns() - from);
    return result;
}
