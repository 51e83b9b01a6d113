/* How the threads of a process come to be watched (ptrace(2), PTRACE_SEIZE). */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "holder.h"

/*
 * A thread that executes a program waits until all others have ended and their ends were taken note of, by us for those that we have
 * seized; to seize one more waits for that thread. So events are taken in the meantime, in the handler of SIGCHLD; else neither would ever go on.
 */
static volatile sig_atomic_t seizing;
/* What was taken, in its order. */
static struct event {
    pid_t tid;
    int status;
} *taken;
static size_t taken_count, taken_room, taken_from;

void target_take_while_seizing(void)
{
    const int error = errno;
    int status;
    /* Nothing that it calls is interrupted here, but a system call: the signal is let in for that alone. */
    for (pid_t tid; seizing && (tid = waitpid(-1, &status, __WALL | WNOHANG)) > 0;) {
        taken = grown(taken, taken_count, &taken_room, sizeof *taken);
        taken[taken_count++] = (struct event){.tid = tid, .status = status};
    }
    errno = error;
}

pid_t target_taken(int *status)
{
    if (taken_from == taken_count) {
        taken_from = taken_count = 0;
        return 0;
    }
    *status = taken[taken_from].status;
    return taken[taken_from++].tid;
}

/* Returns 0 or an errno. */
static int seize(pid_t tid)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    seizing = true;
    sigprocmask(SIG_UNBLOCK, &child, NULL);
    int error = ptrace(PTRACE_SEIZE, tid, 0, TRACE_OPTIONS) == 0 ? 0 : errno;
    sigprocmask(SIG_BLOCK, &child, NULL);
    seizing = false;
    return error;
}

/* Seizes the threads that are there now and not seized yet. Returns how many, or -errno. */
static int seize_more(struct target *target)
{
    char path[64];
    int seized = 0;
    snprintf(path, sizeof path, "/proc/%d/task", target->pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return errno == ENOENT ? -ESRCH : -errno;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        pid_t tid = (pid_t)atoi(entry->d_name);
        if (tid <= 0 || target_find(target, tid))
            continue;
        int error = seize(tid);
        if (error == 0) {
            target_add(target, tid);
            seized++;
        } else if (error != ESRCH && !(error == EPERM && target->count > 0)) {
            /* EPERM later on: a thread that a seized one has just made is seized already. */
            if (thread_has_ended(target->pid, tid)) /* as the first thread may have, long ago */
                continue;
            closedir(tasks);
            return -error;
        }
    }
    closedir(tasks);
    return seized;
}

static int seize_all(struct target *target)
{
    int seized;
    /* Threads that are not seized yet may make more. */
    while ((seized = seize_more(target)) > 0)
        ;
    if (seized < 0)
        return -seized;
    return target->count > 0 ? 0 : ESRCH;
}

int target_seize(struct target *target, pid_t pid)
{
    *target = (struct target){.pid = pid};
    return seize_all(target);
}

int target_seize_again(struct target *target)
{
    target->ended = false;
    target_events(target); /* what has been seized with the thread that made it may not be known yet */
    target->ended = false;
    for (size_t i = 0; i < target->count;)
        if (ptrace(PTRACE_INTERRUPT, target->threads[i].tid, 0, 0) < 0)
            target_forget(target, &target->threads[i]); /* the last one takes its place */
        else
            target->threads[i++].told = true;
    return seize_all(target);
}
