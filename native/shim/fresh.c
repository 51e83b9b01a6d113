/*
 * Makes the guest's files anew, where nobody else does: a libvirt domain is started by libvirtd, which knows nothing of them. Each
 * start of QEMU needs a RAM file without what an earlier guest left in it, a lease that nobody holds, and an empty channel for
 * forgetting. They are readable by QEMU's user alone, and the room for the RAM is reserved: a guest that found none later would be
 * ended by SIGBUS. QEMU also gets the file into which the devices' state is written, which the agent opens through /proc.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "forget.h"
#include "lease.h"
#include "shim.h"

/* What QEMU says on its way out is what libvirt shows. */
static void give_up(const char *path, off_t bytes, int error)
{
    fprintf(stderr, "subpage: cannot make %s with %lld bytes: %s\n", path, (long long)bytes, strerror(error));
    _exit(1);
}

static void make(const char *path, off_t bytes)
{
    if (!path)
        return;
    /* A process that has the former one keeps it. */
    if (unlink(path) < 0 && errno != ENOENT)
        give_up(path, bytes, errno);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        give_up(path, bytes, errno);
    int error = posix_fallocate(fd, 0, bytes);
    if (error != 0) {
        unlink(path);
        give_up(path, bytes, error);
    }
    close(fd);
}

void refuse_if_held(const char *path)
{
    char reason[512];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        if (errno == ENOENT)
            return;
        give_up(path, 0, errno);
    }
    ssize_t length = read(fd, reason, sizeof reason - 1);
    reason[length > 0 ? length : 0] = '\0';
    fprintf(stderr, "subpage: %s\n", reason);
    _exit(1);
}

void fresh_files(const char *ram_bytes, const char *ram, const char *lease, const char *forget)
{
    char *end;
    errno = 0;
    long long bytes = strtoll(ram_bytes, &end, 10);
    if (errno != 0 || *end != '\0' || bytes <= 0)
        give_up(ram, 0, EINVAL);
    make(ram, (off_t)bytes);
    make(lease, LEASE_FILE_BYTES);
    make(forget, FORGET_FILE_BYTES);
    /* By this name the agent finds it (src/qemu/device-state-file.ts). Open as long as QEMU runs. */
    if (memfd_create("subpage-devices", MFD_CLOEXEC) < 0)
        give_up("the file of the devices' state", 0, errno);
}
