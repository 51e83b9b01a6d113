/*
 * Gets the descriptor that tracks the target's memory. A userfaultfd belongs to the address space of whoever opens it, so
 * the target has to; from then on a copy of it serves (pidfd_getfd(2)), and the target closes its own again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim/uffd.h"
#include "holder.h"

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

static bool fail(struct watch *watch, const char *step, int error)
{
    watch->failed = step;
    watch->error = error;
    return false;
}

/* A filter may end a process that makes a call of ours. Each thread has its own (seccomp(2)). */
static bool has_filter(pid_t tid)
{
    char path[64], line[256];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/status", tid);
    FILE *status = fopen(path, "re");
    while (status && fgets(line, sizeof line, status))
        if (strncmp(line, "Seccomp:", 8) == 0)
            found = atoi(line + 8) != 0;
    if (status)
        fclose(status);
    return found;
}

/* Of a process whose first thread has ended only another thread knows the descriptors: PIDFD_THREAD, Linux 6.9. */
int copy_descriptor(pid_t tid, pid_t pid, int theirs)
{
    int pidfd = (int)syscall(SYS_pidfd_open, tid, O_EXCL);
    if (pidfd < 0)
        pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return -1;
    int ours = (int)syscall(SYS_pidfd_getfd, pidfd, theirs, 0);
    int error = errno;
    close(pidfd);
    errno = error;
    return ours;
}

/* Opens it inside, copies it, closes it inside. Returns the copy or -1 with the step. */
static int open_inside(struct watch *watch, pid_t tid)
{
    uint64_t at = find_syscall(watch->pid);
    if (at == 0) {
        fail(watch, "no system call instruction was found in its memory", watch_is_gone(watch) ? ESRCH : 0);
        return -1;
    }
    const long full[3] = {O_CLOEXEC | O_NONBLOCK}, user[3] = {O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY};
    long theirs = inject_syscall(tid, at, SYS_userfaultfd, full);
    if (theirs == -EPERM)
        theirs = inject_syscall(tid, at, SYS_userfaultfd, user);
    if (theirs == INJECT_FAILED && errno == ENOEXEC) {
        fail(watch, "it is a program of 32 bits", 0);
        return -1;
    }
    if (theirs == INJECT_FAILED && errno == ETIMEDOUT) {
        fail(watch, "it did not make a call within 2 s: it is frozen, or gets no processor time", 0);
        return -1;
    }
    if (theirs < 0) {
        fail(watch, "userfaultfd", theirs == INJECT_FAILED ? errno : (int)-theirs);
        return -1;
    }
    int ours = copy_descriptor(tid, watch->pid, (int)theirs);
    int error = errno;
    const long close_it[3] = {theirs};
    inject_syscall(tid, at, SYS_close, close_it);
    if (ours < 0)
        fail(watch, "pidfd_getfd", error);
    return ours;
}

bool watch_prepare(struct watch *watch, pid_t stopped_thread)
{
    if (stopped_thread == 0)
        return fail(watch, "no thread of it came to where a call can be made, within 2 s: all of it waits in the kernel",
                    watch_is_gone(watch) ? ESRCH : 0);
    if (has_filter(stopped_thread))
        return fail(watch, "it runs under a seccomp filter", 0);
    /* Nothing but SIGKILL ends this program while the target runs what is not its own. */
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    int uffd = open_inside(watch, stopped_thread);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (uffd < 0)
        return false;
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    };
    if (ioctl(uffd, UFFDIO_API, &api) < 0) {
        int error = errno;
        close(uffd);
        return fail(watch, "UFFDIO_API with WP_ASYNC (Linux 6.7)", error);
    }
    watch->uffd = uffd;
    return true;
}
