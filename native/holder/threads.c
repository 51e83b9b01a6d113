/*
 * All threads of the target, stopped and started with PTRACE_SEIZE and PTRACE_INTERRUPT. Between two stops signals and new
 * threads pass through here and are sent on at once. Source: ptrace(2).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "holder.h"

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

static const long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;

static struct thread *find(const struct target *target, pid_t tid)
{
    for (size_t i = 0; i < target->count; i++)
        if (target->threads[i].tid == tid)
            return &target->threads[i];
    return NULL;
}

static struct thread *add(struct target *target, pid_t tid)
{
    target->threads = grown(target->threads, target->count, &target->room, sizeof *target->threads);
    struct thread *thread = &target->threads[target->count++];
    *thread = (struct thread){.tid = tid};
    return thread;
}

static void drop(struct target *target, pid_t tid)
{
    struct thread *thread = find(target, tid);
    if (thread)
        *thread = target->threads[--target->count];
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
        if (tid <= 0 || find(target, tid))
            continue;
        if (ptrace(PTRACE_SEIZE, tid, 0, options) == 0) {
            add(target, tid);
            seized++;
        } else if (errno != ESRCH && !(errno == EPERM && target->count > 0)) {
            /* EPERM later on: a thread that a seized one has just made is seized already, or it has ended. */
            int error = errno;
            closedir(tasks);
            return -error;
        }
    }
    closedir(tasks);
    return seized;
}

int target_seize(struct target *target, pid_t pid)
{
    *target = (struct target){.pid = pid};
    int seized;
    /* Threads that are not seized yet may make more. */
    while ((seized = seize_more(target)) > 0)
        ;
    if (seized < 0)
        return -seized;
    return target->count > 0 ? 0 : ESRCH;
}

static void go_on(struct thread *thread)
{
    if (thread->state == THREAD_RUNNING)
        return;
    if (thread->group_stop) {
        if (thread->state == THREAD_STOPPED && ptrace(PTRACE_LISTEN, thread->tid, 0, 0) == 0)
            thread->state = THREAD_LISTENING;
        return;
    }
    /* ESRCH: it was killed meanwhile; waitpid will tell. */
    ptrace(PTRACE_CONT, thread->tid, 0, (long)thread->signal);
    thread->signal = 0;
    thread->state = THREAD_RUNNING;
}

static bool stops_job(int signal)
{
    return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

static void on_exec(struct target *target, struct thread *thread)
{
    /* The thread that executed has taken the place of the first one; the others are gone. */
    struct thread only = *thread;
    target->threads[0] = only;
    target->count = 1;
    target->executed = true;
    target->threads[0].signal = 0;
    target->threads[0].group_stop = false;
    /* The memory is new from here on, but the call has not returned: stop again once it has. */
    ptrace(PTRACE_INTERRUPT, only.tid, 0, 0);
    ptrace(PTRACE_CONT, only.tid, 0, 0);
    target->threads[0].state = THREAD_RUNNING;
}

static void on_stop(struct target *target, pid_t tid, int status)
{
    struct thread *thread = find(target, tid);
    if (!thread)
        thread = add(target, tid);
    int signal = WSTOPSIG(status), event = status >> 16;
    thread->state = THREAD_STOPPED;
    if (event == PTRACE_EVENT_EXEC) {
        on_exec(target, thread);
        return;
    }
    thread->group_stop = event == PTRACE_EVENT_STOP && stops_job(signal);
    thread->can_call = event == PTRACE_EVENT_STOP && !thread->group_stop;
    if (event == 0)
        thread->signal = signal;
    if (!target->holding && !target->executed)
        go_on(thread);
}

/* One event, without waiting. False when there is none. */
static bool event(struct target *target)
{
    int status;
    pid_t tid = waitpid(-1, &status, __WALL | WNOHANG);
    if (tid < 0) {
        if (errno == ECHILD) /* there is nobody left to wait for */
            target->ended = true;
        return false;
    }
    if (tid == 0)
        return false;
    if (WIFSTOPPED(status)) {
        on_stop(target, tid, status);
        return true;
    }
    if (tid == target->pid) { /* the first thread's status is that of the process, and comes last */
        target->exit_status = status;
        target->reaped = true;
        target->ended = true;
    }
    drop(target, tid);
    return true;
}

void target_events(struct target *target)
{
    while (!target->ended && event(target))
        ;
}

static size_t running(const struct target *target)
{
    size_t count = 0;
    for (size_t i = 0; i < target->count; i++)
        count += target->threads[i].state != THREAD_STOPPED;
    return count;
}

/* A first thread that has ended stays, and cannot stop, until all others have ended. */
static void drop_ended(struct target *target)
{
    for (size_t i = 0; i < target->count;) {
        char path[64], text[512];
        snprintf(path, sizeof path, "/proc/%d/task/%d/stat", target->pid, target->threads[i].tid);
        FILE *stat = target->threads[i].state == THREAD_STOPPED ? NULL : fopen(path, "re");
        const char *state = stat && fgets(text, sizeof text, stat) ? strrchr(text, ')') : NULL;
        if (stat)
            fclose(stat);
        if (state && (state[2] == 'Z' || state[2] == 'X'))
            target->threads[i] = target->threads[--target->count];
        else
            i++;
    }
}

bool target_hold(struct target *target, int timeout_ms)
{
    uint64_t deadline = now_ns() + (uint64_t)timeout_ms * 1000000u;
    target->holding = true;
    for (size_t i = 0; i < target->count; i++)
        if (target->threads[i].state != THREAD_STOPPED)
            ptrace(PTRACE_INTERRUPT, target->threads[i].tid, 0, 0);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    for (;;) {
        target_events(target);
        if (target->ended)
            return false;
        if (running(target) == 0)
            return target->count > 0;
        uint64_t now = now_ns();
        if (now >= deadline) {
            drop_ended(target);
            return target->count > 0 && running(target) == 0;
        }
        struct timespec left = {.tv_sec = (time_t)((deadline - now) / 1000000000u),
                                .tv_nsec = (long)((deadline - now) % 1000000000u)};
        sigtimedwait(&child, NULL, &left);
    }
}

void target_release(struct target *target)
{
    target->holding = false;
    if (target->executed)
        return; /* it goes on when its memory is prepared */
    for (size_t i = 0; i < target->count; i++)
        go_on(&target->threads[i]);
}

pid_t target_stopped_thread(const struct target *target)
{
    for (size_t i = 0; i < target->count; i++)
        if (target->threads[i].state == THREAD_STOPPED && target->threads[i].can_call)
            return target->threads[i].tid;
    return 0;
}

void target_detach(struct target *target)
{
    if (target->ended)
        return;
    target_hold(target, 200);
    for (size_t i = 0; i < target->count; i++)
        if (target->threads[i].state == THREAD_STOPPED)
            ptrace(PTRACE_DETACH, target->threads[i].tid, 0, (long)target->threads[i].signal);
    /* One that waits in the kernel is let go when this program ends. */
}
