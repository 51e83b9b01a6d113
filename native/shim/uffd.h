/*
 * Write tracking by the kernel: a userfaultfd in WP_ASYNC mode over a range of this process's own memory.
 *
 * Used by the shim inside QEMU, and by the addon to probe whether it works here. The first write to an armed page is
 * resolved inside the kernel and leaves a mark that PAGEMAP_SCAN reads from outside; no message, no handler.
 * Source: Linux Documentation/admin-guide/mm/userfaultfd.rst, pagemap.rst (6.7 and later).
 */
#ifndef SUBPAGE_UFFD_H
#define SUBPAGE_UFFD_H

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Kernel headers before 6.7 lack these. */
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* What failed, for the people who read `subpage check` and `subpage status`. */
struct uffd_failure {
    const char *step;
    int error;
};

/* `full` can later serve faults of system calls too; `user` only tracks. */
struct uffd {
    int fd;
    const char *kind;
};

/* Tries the most capable way first. Returns false with the reason of the last attempt. */
static inline bool uffd_open(struct uffd *uffd, struct uffd_failure *failure)
{
    uffd->kind = "full";
    uffd->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (uffd->fd < 0) {
        int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
        if (device >= 0) {
            uffd->fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
            close(device);
        }
    }
    if (uffd->fd < 0) {
        uffd->kind = "user";
        uffd->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    }
    if (uffd->fd < 0) {
        *failure = (struct uffd_failure){"userfaultfd", errno};
        return false;
    }
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    };
    if (ioctl(uffd->fd, UFFDIO_API, &api) < 0) {
        *failure = (struct uffd_failure){"UFFDIO_API with WP_ASYNC (Linux 6.7)", errno};
        close(uffd->fd);
        uffd->fd = -1;
        return false;
    }
    return true;
}

static inline bool uffd_register(const struct uffd *uffd, const void *address, size_t bytes,
                                 struct uffd_failure *failure)
{
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)address, .len = bytes},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    if (ioctl(uffd->fd, UFFDIO_REGISTER, &range) == 0)
        return true;
    *failure = (struct uffd_failure){"UFFDIO_REGISTER", errno};
    return false;
}

/* Sets or takes away the marks of a range, holes included. */
static inline bool uffd_mark(const struct uffd *uffd, uint64_t start, uint64_t bytes, bool arm)
{
    struct uffdio_writeprotect range = {
        .range = {.start = start & ~UINT64_C(4095)},
        .mode = arm ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
    };
    range.range.len = ((start + bytes + 4095) & ~UINT64_C(4095)) - range.range.start;
    int result;
    do
        result = ioctl(uffd->fd, UFFDIO_WRITEPROTECT, &range);
    while (result < 0 && errno == EAGAIN); /* the address space was just changing */
    return result == 0;
}

/* Takes the mark of an armed page away from a range: the next scan reports all of it as written. */
static inline bool uffd_disarm(const struct uffd *uffd, uint64_t start, uint64_t bytes)
{
    return uffd_mark(uffd, start, bytes, false);
}

#endif
