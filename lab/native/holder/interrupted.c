/*
 * System calls that a stop has cut short. Most of them the kernel makes again, with what is left of their time; some return
 * EINTR as if a signal had been handled (signal(7)). Threads that sleep are not stopped (asleep.c), but one that is just falling asleep
 * is, and so is one that gets a signal that it ignores: of a traced process the kernel does not drop these.
 *
 * The remedy is the kernel's own: with ERESTARTNOHAND in place of EINTR it makes the call again, unless a handler runs, and then
 * returns EINTR (arch_do_signal_or_restart).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <unistd.h>

#include "holder.h"

#ifdef __x86_64__

enum { ERESTARTNOHAND = 514, KVM_RUN = 0xae80, CODE_SEGMENT_32 = 0x23 };

/* Calls of which EINTR means that nothing was done. close(2), for one, is not among them. */
static bool can_repeat(long call, unsigned long second)
{
    switch (call) {
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case 441: /* epoll_pwait2 */
    case SYS_rt_sigtimedwait:
    case SYS_semop:
    case SYS_semtimedop:
    case SYS_msgrcv:
    case SYS_msgsnd:
    case SYS_io_getevents:
    case 333: /* io_pgetevents */
    case 426: /* io_uring_enter */
    case SYS_read:
    case SYS_readv:
    case SYS_preadv2:
    case SYS_write:
    case SYS_writev:
    case SYS_pwritev2:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg:
    case SYS_sendfile:
    case SYS_splice:
    case SYS_accept:
    case SYS_accept4:
    case SYS_connect:
        return true;
    case SYS_ioctl:
        return second == KVM_RUN;
    default:
        return false;
    }
}

/* The same in programs of 32 bits (arch/x86/entry/syscalls/syscall_32.tbl). */
static bool can_repeat_32(long call)
{
    static const short calls[] = {3 /* read */, 4 /* write */, 102 /* socketcall */, 117 /* ipc */, 145, 146 /* readv, writev */,
                                  177 /* rt_sigtimedwait */, 247 /* io_getevents */, 256 /* epoll_wait */, 319 /* epoll_pwait */,
                                  337 /* recvmmsg */, 345 /* sendmmsg */, 362 /* connect */, 364 /* accept4 */, 369, 370 /* sendto, sendmsg */,
                                  371, 372 /* recvfrom, recvmsg */, 385 /* io_pgetevents */, 400, 401 /* msgsnd, msgrcv */,
                                  416, 417, 420, 421, 426, 441 /* those with 64-bit times, io_uring_enter, epoll_pwait2 */};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (calls[i] == call)
            return true;
    return false;
}

static long peek(pid_t tid, size_t offset)
{
    return ptrace(PTRACE_PEEKUSER, tid, offset, 0);
}

#define REGISTER(name) offsetof(struct user, regs.name)
#define NO_LIMIT UINT64_MAX

/* A struct timespec of the target's. */
static uint64_t time_at(pid_t tid, unsigned long long address)
{
    if (address == 0)
        return NO_LIMIT;
    errno = 0;
    long seconds = ptrace(PTRACE_PEEKDATA, tid, address, 0);
    long nanoseconds = errno == 0 ? ptrace(PTRACE_PEEKDATA, tid, address + 8, 0) : 0;
    const long long_time = 1000000000;
    return errno != 0 || seconds < 0 || seconds > long_time ? NO_LIMIT
                                                            : (uint64_t)seconds * 1000000000u + (uint64_t)nanoseconds;
}

static uint64_t time_of_socket(const struct target *target, pid_t tid, int theirs, int option)
{
    struct timeval time = {0};
    socklen_t length = sizeof time;
    int fd = copy_descriptor(tid, target->pid, theirs);
    if (fd < 0)
        return NO_LIMIT;
    int got = getsockopt(fd, SOL_SOCKET, option, &time, &length);
    close(fd);
    return got < 0 || (time.tv_sec == 0 && time.tv_usec == 0)
               ? NO_LIMIT
               : (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_usec * 1000u;
}

/* How long the call may last, and what it returns then. */
static uint64_t limit_of(const struct target *target, pid_t tid, const struct user_regs_struct *registers, long *expired)
{
    *expired = -EAGAIN;
    switch ((long)registers->orig_rax) {
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
        *expired = 0;
        return (int)registers->r10 < 0 ? NO_LIMIT : (uint64_t)registers->r10 * 1000000u;
    case 441: /* epoll_pwait2 */
        *expired = 0;
        return time_at(tid, registers->r10);
    case SYS_io_getevents:
    case 333: /* io_pgetevents */
        *expired = 0;
        return time_at(tid, registers->r8);
    case SYS_rt_sigtimedwait:
        return time_at(tid, registers->rdx);
    case SYS_semtimedop:
        return time_at(tid, registers->r10);
    case SYS_read:
    case SYS_readv:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_accept:
    case SYS_accept4:
        return time_of_socket(target, tid, (int)registers->rdi, SO_RCVTIMEO);
    case SYS_connect:
    case SYS_write:
    case SYS_writev:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg:
        return time_of_socket(target, tid, (int)registers->rdi, SO_SNDTIMEO);
    default:
        return NO_LIMIT;
    }
}

/*
 * How long the call has lasted before it was cut short for the first time is not known: its time begins there. From then on it is
 * followed (PTRACE_SYSCALL), and keeps its deadline however often it is made again.
 */
void repeat_interrupted(struct target *target, struct thread *thread)
{
    const pid_t tid = thread->tid;
    struct user_regs_struct registers;
    struct repeated *repeated = &thread->repeated;
    if (peek(tid, REGISTER(rax)) != -EINTR || ptrace(PTRACE_GETREGS, tid, 0, &registers) < 0)
        return;
    const long call = (long)registers.orig_rax;
    if (call < 0) /* it was in no call */
        return;
    const bool short_words = registers.cs == CODE_SEGMENT_32;
    if (short_words ? !can_repeat_32(call) : !can_repeat(call, registers.rsi))
        return;
    const uint64_t now = now_ns();
    if (repeated->deadline_ns == 0 && !short_words) {
        const uint64_t limit = limit_of(target, tid, &registers, &repeated->expired);
        if (limit != NO_LIMIT) {
            repeated->deadline_ns = now + limit;
            repeated->call = call;
            repeated->stack = registers.rsp;
        }
    }
    if (repeated->deadline_ns > 0 && repeated->deadline_ns <= now) {
        repeated->deadline_ns = 0;
        registers.rax = (unsigned long long)repeated->expired;
        registers.orig_rax = (unsigned long long)-1;
    } else
        registers.rax = (unsigned long long)-ERESTARTNOHAND;
    ptrace(PTRACE_SETREGS, tid, 0, &registers);
}

void follow_repeated(struct thread *thread)
{
    struct user_regs_struct registers;
    struct repeated *repeated = &thread->repeated;
    if (ptrace(PTRACE_GETREGS, thread->tid, 0, &registers) < 0)
        return;
    const long result = (long)registers.rax;
    if ((long)registers.orig_rax != repeated->call || registers.rsp != repeated->stack) {
        *repeated = (struct repeated){0};
        return;
    }
    if (result == -EINTR) /* this stop has taken the place of the one that was asked for, in which it can be repeated */
        thread->told = ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0) == 0;
    else if (result != -ENOSYS) /* it does not begin: it ends */
        repeated->deadline_ns = 0;
}

bool call_returns_eintr(const struct sleep *sleep)
{
    return can_repeat(sleep->call, sleep->arguments[1]);
}

#else

void repeat_interrupted(struct target *target, struct thread *thread)
{
    (void)target, (void)thread;
}

void follow_repeated(struct thread *thread)
{
    thread->repeated = (struct repeated){0};
}

bool call_returns_eintr(const struct sleep *sleep)
{
    (void)sleep;
    return true;
}

#endif
