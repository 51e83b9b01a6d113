/*
 * All threads of the target, stopped and started with PTRACE_SEIZE and PTRACE_INTERRUPT. Between two stops signals and new
 * threads pass through here and are sent on at once. Source: ptrace(2).
 *
 * A thread is left alone while it sleeps in a call that a stop would cut short (interrupted.c), and while it does not come back
 * from the kernel. It may wake while the others stand; what it writes then counts in this epoch or in the next one, never in none:
 * marks are taken before pages are copied.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "holder.h"

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

_Static_assert((int)TRACE_OPTIONS == (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC), "");

struct thread *target_find(const struct target *target, pid_t tid)
{
    for (size_t i = 0; i < target->count; i++)
        if (target->threads[i].tid == tid)
            return &target->threads[i];
    return NULL;
}

struct thread *target_add(struct target *target, pid_t tid)
{
    target->threads = grown(target->threads, target->count, &target->room, sizeof *target->threads);
    struct thread *thread = &target->threads[target->count++];
    *thread = (struct thread){.tid = tid, .syscall_fd = -1};
    return thread;
}

void target_forget(struct target *target, struct thread *thread)
{
    SP_INVARIANT(thread >= target->threads && thread < target->threads + target->count);
    if (thread->syscall_fd >= 0)
        close(thread->syscall_fd);
    *thread = target->threads[--target->count];
}

static void drop(struct target *target, pid_t tid)
{
    struct thread *thread = target_find(target, tid);
    if (thread)
        target_forget(target, thread);
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
    int request = thread->repeated.deadline_ns > 0 ? PTRACE_SYSCALL : PTRACE_CONT;
    ptrace(request, thread->tid, 0, (long)thread->signal);
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
    thread->syscall_fd = -1; /* not closed below */
    while (target->count > 0)
        target_forget(target, &target->threads[0]);
    SP_INVARIANT(target->count < target->room);
    target->threads[target->count++] = only;
    target->executed = true;
    target->threads[0].signal = 0;
    target->threads[0].repeated = (struct repeated){0};
    target->threads[0].group_stop = false;
    /* The memory is new from here on, but the call has not returned: stop again once it has. */
    ptrace(PTRACE_INTERRUPT, only.tid, 0, 0);
    ptrace(PTRACE_CONT, only.tid, 0, 0);
    target->threads[0].state = THREAD_RUNNING;
}

/*
 * A child process that was made by clone(2) with another signal than SIGCHLD is traced as a thread would be. Only what shares
 * the process's number is a thread of it.
 */
static bool is_ours(const struct target *target, pid_t tid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d", target->pid, tid);
    return access(path, F_OK) == 0;
}

static void on_stop(struct target *target, pid_t tid, int status)
{
    struct thread *thread = target_find(target, tid);
    int signal = WSTOPSIG(status), event = status >> 16;
    if (!thread && !is_ours(target, tid)) {
        ptrace(PTRACE_DETACH, tid, 0, (long)(event == 0 ? signal : 0));
        return;
    }
    if (!thread)
        thread = target_add(target, tid);
    thread->state = THREAD_STOPPED;
    thread->told = false;
    if (event == PTRACE_EVENT_EXEC) {
        on_exec(target, thread);
        return;
    }
    thread->group_stop = event == PTRACE_EVENT_STOP && stops_job(signal);
    thread->can_call = event == PTRACE_EVENT_STOP; /* that of job control too: it makes the call, and stands again */
    const bool at_call = signal == (SIGTRAP | 0x80);
    if (at_call)
        follow_repeated(thread);
    else if (event == 0)
        thread->signal = signal;
    if ((thread->can_call && !thread->group_stop) || (event == 0 && !at_call && !stops_job(signal)))
        repeat_interrupted(target, thread);
    if (!target->holding && !target->executed)
        go_on(thread);
}

/* One event, without waiting. False when there is none. */
static bool event(struct target *target)
{
    int status;
    pid_t tid = target_taken(&status);
    if (tid == 0)
        tid = waitpid(-1, &status, __WALL | WNOHANG);
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

static void interrupt(struct thread *thread)
{
    thread->told = ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0) == 0;
}

/* How many may still write: neither stopped nor asleep. */
static size_t moving(const struct target *target)
{
    size_t count = 0;
    for (size_t i = 0; i < target->count; i++)
        count += target->threads[i].state == THREAD_RUNNING && !target->threads[i].asleep;
    return count;
}

/* One that was told to stop stands as soon as it sleeps: it does not come back from the kernel without stopping. */
static void look_again(struct target *target, bool long_enough)
{
    struct sleep sleep;
    for (size_t i = 0; i < target->count; i++) {
        struct thread *thread = &target->threads[i];
        if (thread->state == THREAD_RUNNING && !thread->asleep)
            thread->asleep = (thread_asleep(target->pid, thread, &sleep) && (long_enough || !sleeps_briefly(&sleep))) ||
                             thread_has_ended(target->pid, thread->tid);
    }
}

/* Waits for the next event. */
static void await_event(uint64_t ns)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    const struct timespec time = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    sigtimedwait(&child, NULL, &time);
}

bool target_hold(struct target *target, int timeout_ms)
{
    const uint64_t look_ns = 300000, brief_ns = 5000000, begin = now_ns();
    const uint64_t deadline = begin + (uint64_t)timeout_ms * 1000000u;
    struct sleep sleep;
    target->holding = true;
    /* All are looked at before the first is stopped: it stands for less time. */
    for (size_t i = 0; i < target->count; i++) {
        struct thread *thread = &target->threads[i];
        thread->asleep = thread->state == THREAD_RUNNING && thread_asleep(target->pid, thread, &sleep) &&
                         (thread->told || call_returns_eintr(&sleep));
    }
    for (size_t i = 0; i < target->count; i++)
        if (target->threads[i].state == THREAD_RUNNING && !target->threads[i].asleep)
            interrupt(&target->threads[i]);
    for (uint64_t look = now_ns() + look_ns;;) {
        target_events(target);
        if (target->ended)
            return false;
        if (moving(target) == 0)
            return target->count > 0;
        uint64_t now = now_ns();
        if (now >= look) {
            look_again(target, now - begin > brief_ns);
            look = now + look_ns;
        } else if (now >= deadline)
            return false;
        else
            await_event(look - now);
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

/* Asked once of each thread. */
static bool is_worker(const struct target *target, struct thread *thread)
{
    if (thread->kind == KIND_UNKNOWN)
        thread->kind = thread_is_worker(target->pid, thread->tid) ? KIND_WORKER : KIND_PROGRAM;
    return thread->kind == KIND_WORKER;
}

pid_t target_stopped_thread(struct target *target)
{
    for (size_t i = 0; i < target->count; i++)
        if (target->threads[i].state == THREAD_STOPPED && target->threads[i].can_call && !is_worker(target, &target->threads[i]))
            return target->threads[i].tid;
    return 0;
}

enum reluctance { FEELS_NOTHING, FEELS_STOP, DOES_NOT_COME, RELUCTANCES };

/*
 * The calls that the kernel makes again by itself come first: nothing can be told of them afterwards. One that waits for a device or in vfork(2)
 * may not come at all.
 */
static enum reluctance reluctance_of(const struct target *target, struct thread *thread)
{
    struct sleep sleep;
    if (thread_state_letter(target->pid, thread->tid) == 'D')
        return DOES_NOT_COME;
    return thread_asleep(target->pid, thread, &sleep) && call_returns_eintr(&sleep) ? FEELS_STOP : FEELS_NOTHING;
}

/* Stops one more thread, the one that feels it least; while one that was told may still come, only one that feels nothing. */
static void ask_one(struct target *target, bool long_enough)
{
    struct thread *chosen = NULL;
    enum reluctance least = RELUCTANCES;
    bool told = false;
    for (size_t i = 0; i < target->count && least > FEELS_NOTHING; i++) {
        struct thread *thread = &target->threads[i];
        if (thread->state != THREAD_RUNNING || is_worker(target, thread))
            continue;
        told = told || thread->told;
        if (thread->told)
            continue;
        enum reluctance reluctance = reluctance_of(target, thread);
        if (reluctance < least) {
            chosen = thread;
            least = reluctance;
        }
    }
    if (chosen && (least == FEELS_NOTHING || !told || long_enough))
        interrupt(chosen);
}

/*
 * A thread may stand where no call can be put in: before it takes a signal, or when it has just made another thread. It goes on from there
 * to the next stop. Returns whether there was one.
 */
static bool send_to_next_stop(struct target *target)
{
    bool any = false;
    for (size_t i = 0; i < target->count; i++) {
        struct thread *thread = &target->threads[i];
        if (thread->state != THREAD_STOPPED || thread->can_call)
            continue;
        interrupt(thread); /* the stop in which it stands has taken the place of the one that was asked for */
        go_on(thread);
        any = true;
    }
    return any;
}

pid_t target_calling_thread(struct target *target)
{
    const uint64_t ask_ns = 20000000, begin = now_ns(), deadline = begin + CALL_MS * UINT64_C(1000000);
    for (uint64_t ask = 0;;) {
        target_events(target);
        pid_t tid = target_stopped_thread(target);
        uint64_t now = now_ns();
        if (tid != 0 || target->ended || now >= deadline)
            return tid;
        if (send_to_next_stop(target))
            ask = now + ask_ns;
        else if (now >= ask) {
            ask_one(target, now - begin > CALL_MS * UINT64_C(500000));
            ask = now + ask_ns;
        }
        await_event(ask - now < deadline - now ? ask - now : deadline - now);
    }
}

uint64_t target_expire(struct target *target)
{
    uint64_t now = now_ns(), next = UINT64_MAX;
    for (size_t i = 0; i < target->count; i++) {
        struct thread *thread = &target->threads[i];
        const uint64_t deadline = thread->repeated.deadline_ns;
        if (deadline == 0 || thread->state != THREAD_RUNNING)
            continue;
        if (deadline <= now)
            interrupt(thread);
        const uint64_t left = deadline <= now ? 1000000 : deadline - now;
        next = left < next ? left : next;
    }
    return next;
}

pid_t target_living_thread(const struct target *target, pid_t former)
{
    if (former != target->pid && !thread_has_ended(target->pid, target->pid))
        return target->pid;
    for (size_t i = 0; i < target->count; i++)
        if (target->threads[i].tid != former && !thread_has_ended(target->pid, target->threads[i].tid))
            return target->threads[i].tid;
    return 0;
}

bool target_ends(struct target *target)
{
    const uint64_t deadline = now_ns() + 200000000;
    for (;;) {
        target_events(target);
        if (target->ended || target_living_thread(target, 0) == 0)
            return true;
        if (now_ns() >= deadline)
            return false;
        await_event(1000000);
    }
}

/* Whether a thread that was told to stop will, in a moment. One that cannot be woken does not notice that it was told. */
static bool any_comes(const struct target *target)
{
    for (size_t i = 0; i < target->count; i++) {
        const struct thread *thread = &target->threads[i];
        if (thread->state == THREAD_RUNNING && thread->told && thread_state_letter(target->pid, thread->tid) != 'D')
            return true;
    }
    return false;
}

/* A thread that was told to stop has been woken: were it let go now, its call would return EINTR, with nobody to have it made again. */
void target_detach(struct target *target)
{
    const uint64_t deadline = now_ns() + UINT64_C(2000000000);
    target->executed = false;
    target_release(target);
    for (;;) {
        target_events(target);
        if (target->ended || !any_comes(target) || now_ns() >= deadline)
            return;
        await_event(1000000);
    }
}
