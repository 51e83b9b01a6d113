/*
 * Whether a thread sleeps in the kernel. Such a thread writes nothing. It need not be stopped with the others where that would cut its
 * system call short (signal(7): epoll_wait and others then return EINTR), and it cannot be while it waits in vfork(2) or for a device.
 *
 * /proc/PID/task/TID/syscall says so, and in which call: the kernel looks at a thread that is off its processor, and says "running"
 * when it is not, or did not stay so (proc_pid_syscall(5)).
 *
 * One that changes the address space, or is about to have a page (no call then: -1), waits for a lock for a moment as a rule, and
 * would then change mappings while they are read and registered.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "holder.h"

bool sleeps_briefly(const struct sleep *sleep)
{
    static const long calls[] = {
        -1,          SYS_mmap,    SYS_munmap,  SYS_mremap,  SYS_mprotect, SYS_pkey_mprotect,
        SYS_brk,     SYS_madvise, SYS_mlock,   SYS_munlock, SYS_mlock2,   SYS_mlockall,
        SYS_munlockall, SYS_shmat, SYS_shmdt,  SYS_mbind,   SYS_remap_file_pages,
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (sleep->call == calls[i])
            return true;
    return false;
}

bool thread_asleep(pid_t pid, struct thread *thread, struct sleep *sleep)
{
    char text[256];
    if (thread->syscall_fd < 0) {
        snprintf(text, sizeof text, "/proc/%d/task/%d/syscall", pid, thread->tid);
        thread->syscall_fd = open(text, O_RDONLY | O_CLOEXEC);
    }
    ssize_t got = thread->syscall_fd < 0 ? 0 : pread(thread->syscall_fd, text, sizeof text - 1, 0);
    if (got <= 0)
        return false; /* it has just ended; where the file may not be read, every thread is stopped */
    text[got] = '\0';
    if (strncmp(text, "running", 7) == 0)
        return false;
    char *at = text;
    *sleep = (struct sleep){.call = strtol(at, &at, 10)};
    for (int i = 0; i < 6 && *at == ' '; i++)
        sleep->arguments[i] = strtoul(at, &at, 16);
    return true;
}

/* /proc/PID/task/TID/stat from the state on, which follows the name (proc_pid_stat(5)). False when it is gone. */
static bool read_stat(pid_t pid, pid_t tid, char *text, int bytes)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
    FILE *stat = fopen(path, "re");
    const char *name_end = stat && fgets(text, bytes, stat) ? strrchr(text, ')') : NULL;
    if (stat)
        fclose(stat);
    if (!name_end || name_end[1] != ' ')
        return false;
    memmove(text, name_end + 2, strlen(name_end + 2) + 1);
    return true;
}

char thread_state_letter(pid_t pid, pid_t tid)
{
    char text[512];
    return read_stat(pid, tid, text, sizeof text) ? *text : '\0';
}

/* PF_* of the kernel's include/linux/sched.h. 0 when it is gone. */
static unsigned long flags_in(const char *stat)
{
    unsigned long flags;
    return sscanf(stat, "%*c %*d %*d %*d %*d %*d %lu", &flags) == 1 ? flags : 0;
}

bool thread_has_ended(pid_t pid, pid_t tid)
{
    const unsigned long exiting = 0x4;
    char text[512];
    return !read_stat(pid, tid, text, sizeof text) || *text == 'Z' || *text == 'X' || (flags_in(text) & exiting) != 0;
}

/* Worker threads of io_uring are listed among a process's own and stop as these do, but never run its program (PF_IO_WORKER, PF_USER_WORKER). */
bool thread_is_worker(pid_t pid, pid_t tid)
{
    const unsigned long worker = 0x10 | 0x4000;
    char text[512];
    return read_stat(pid, tid, text, sizeof text) && (flags_in(text) & worker) != 0;
}
