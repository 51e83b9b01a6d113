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

/* Of /proc/PID/task/TID/stat; 0 when it is gone. */
char thread_state_letter(pid_t pid, pid_t tid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
    FILE *stat = fopen(path, "re");
    const char *state = stat && fgets(text, sizeof text, stat) ? strrchr(text, ')') : NULL;
    if (stat)
        fclose(stat);
    return state ? state[2] : '\0';
}
