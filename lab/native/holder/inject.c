/*
 * A system call made by a stopped thread of another process. Only two are ever made: the one that opens a userfaultfd, and
 * the close of that descriptor.
 *
 * The thread stands in PTRACE_EVENT_STOP, where the kernel has not yet decided whether the system call that was
 * interrupted is made again. So the registers are put back in a stop of that very kind: the decision is then taken as if
 * nothing had been in between. Signals are blocked meanwhile. Source: ptrace(2), signal(7).
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "holder.h"

#ifdef __x86_64__

#ifndef PTRACE_GETSIGMASK
#define PTRACE_GETSIGMASK 0x420a
#define PTRACE_SETSIGMASK 0x420b
#endif

enum { STEPS_MAX = 16, CODE_SEGMENT_64 = 0x33 };

/* Linux 6.4. A process with this in use decides about each system call itself, by where it is made (prctl(2), PR_SET_SYSCALL_USER_DISPATCH). */
#ifndef PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG
#define PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG 0x4210
#define PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG 0x4211
#endif
struct dispatch {
    uint64_t mode, selector, offset, length;
};

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif
struct rseq_configuration {
    uint64_t address;
    uint32_t size, signature, flags, pad;
};

/* linux/rseq.h */
enum { RSEQ_CRITICAL_SECTION_OFFSET = 8 };
struct critical_section {
    uint32_t version, flags;
    uint64_t start, length, abort;
};

/*
 * A thread that was stopped within a restartable sequence has to begin it anew: the kernel sees to it before the thread runs on. But at
 * our call it would find it outside, and forget the sequence (rseq(2)). So it is done here, before. Returns 0 or -1 with errno.
 */
static int abort_sequence(pid_t tid, struct user_regs_struct *registers)
{
    struct rseq_configuration rseq;
    struct critical_section section;
    uint64_t address;
    if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof rseq, &rseq) < 0 || rseq.address == 0)
        return 0; /* Linux before 5.13, or a thread without */
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", tid);
    const off_t at = (off_t)rseq.address + RSEQ_CRITICAL_SECTION_OFFSET;
    int mem = open(path, O_RDWR | O_CLOEXEC);
    if (mem < 0)
        return -1;
    int result = pread(mem, &address, sizeof address, at) == sizeof address ? 0 : -1;
    if (result == 0 && address != 0 && pread(mem, &section, sizeof section, (off_t)address) == sizeof section &&
        registers->rip - section.start < section.length) {
        registers->rip = section.abort;
        address = 0;
        result = pwrite(mem, &address, sizeof address, at) == sizeof address ? 0 : -1;
    }
    int error = errno;
    close(mem);
    errno = error;
    return result;
}

/* For a thread whose control group is frozen, or has no processor time left. */
static const uint64_t patience_ns = UINT64_C(2000000000);

/* A stop signal that came meanwhile: it cannot be blocked, and is sent anew afterwards. 0: none. */
static int swallowed;

static bool ended(const siginfo_t *state)
{
    return state->si_pid != 0 && state->si_code != CLD_TRAPPED && state->si_code != CLD_STOPPED;
}

/* Waits for the next stop. Returns its wait status, 0 when it does not come in time, -1 when the thread ends, which threads.c hears then. */
static int await_stop(pid_t tid)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    const uint64_t begin = now_ns();
    for (;;) {
        siginfo_t state = {0};
        if (waitid(P_PID, (id_t)tid, &state, WEXITED | WSTOPPED | WNOWAIT | WNOHANG | __WALL) < 0 || ended(&state))
            return -1;
        int status;
        if (state.si_pid == tid)
            return waitpid(tid, &status, __WALL | WNOHANG) == tid ? status : -1;
        const uint64_t waited = now_ns() - begin;
        if (waited > patience_ns)
            return 0;
        if (waited < 1000000) /* as a rule it takes microseconds */
            sched_yield();
        else
            nanosleep(&pause, NULL);
    }
}

/* Goes on until the next stop. Returns its wait status, 0 when it does not come in time, -1 when the thread is gone. */
static int step(int request, pid_t tid)
{
    if (ptrace(request, tid, 0, 0) < 0)
        return -1;
    const int status = await_stop(tid);
    if (status > 0 && status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP)
        swallowed = SIGSTOP;
    return status;
}

/* An interrupt reaches frozen threads too. Without a stop its registers could not be put back: so this waits however long it takes. */
static void stop_late(pid_t tid)
{
    if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) == 0)
        while (await_stop(tid) == 0)
            ;
}

/* To the entry or the exit of a system call. */
static bool step_syscall(pid_t tid)
{
    for (int i = 0; i < STEPS_MAX; i++) {
        int status = step(PTRACE_SYSCALL, tid);
        if (status == 0) {
            stop_late(tid);
            errno = ETIMEDOUT;
        }
        if (status <= 0)
            return false;
        if (status >> 16 == 0 && WSTOPSIG(status) == (SIGTRAP | 0x80))
            return true;
    }
    errno = EIO;
    return false;
}

/* To a stop in which registers can be put back. */
static bool step_stop(pid_t tid)
{
    if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0)
        return false;
    for (int i = 0; i < STEPS_MAX; i++) {
        int status = step(PTRACE_CONT, tid);
        if (status == 0)
            stop_late(tid);
        if (status < 0)
            return false;
        if (status == 0 || status >> 16 == 128)
            return true;
    }
    errno = EIO;
    return false;
}

static long make(pid_t tid, const struct user_regs_struct *saved, uint64_t address, long number, const long arguments[3])
{
    struct user_regs_struct call = *saved;
    call.rip = address;
    call.orig_rax = (unsigned long)-1; /* no system call is to be made again now */
    call.rax = (unsigned long)number;
    call.rdi = (unsigned long)arguments[0];
    call.rsi = (unsigned long)arguments[1];
    call.rdx = (unsigned long)arguments[2];
    if (ptrace(PTRACE_SETREGS, tid, 0, &call) < 0 || !step_syscall(tid) || !step_syscall(tid) ||
        ptrace(PTRACE_GETREGS, tid, 0, &call) < 0)
        return INJECT_FAILED;
    return (long)call.rax;
}

long inject_syscall(pid_t tid, uint64_t syscall_address, long number, const long arguments[3])
{
    struct user_regs_struct saved;
    uint64_t mask, all = ~UINT64_C(0);
    if (ptrace(PTRACE_GETREGS, tid, 0, &saved) < 0 || ptrace(PTRACE_GETSIGMASK, tid, sizeof mask, &mask) < 0)
        return INJECT_FAILED;
    if (saved.cs != CODE_SEGMENT_64) {
        errno = ENOEXEC;
        return INJECT_FAILED;
    }
    struct dispatch dispatch = {0}, none = {0};
    if (ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, sizeof dispatch, &dispatch) < 0 && errno != EIO)
        return INJECT_FAILED;
    if (dispatch.mode != 0 && ptrace(PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, tid, sizeof none, &none) < 0)
        return INJECT_FAILED;
    if (abort_sequence(tid, &saved) < 0)
        return INJECT_FAILED;
    if (ptrace(PTRACE_SETSIGMASK, tid, sizeof all, &all) < 0)
        return INJECT_FAILED;
    swallowed = 0;
    long result = make(tid, &saved, syscall_address, number, arguments);
    int error = errno;
    step_stop(tid);
    if (swallowed != 0)
        syscall(SYS_tkill, tid, swallowed);
    ptrace(PTRACE_SETREGS, tid, 0, &saved);
    ptrace(PTRACE_SETSIGMASK, tid, sizeof mask, &mask);
    if (dispatch.mode != 0)
        ptrace(PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, tid, sizeof dispatch, &dispatch);
    errno = error;
    return result;
}

/* Looks for the instruction in one mapping. */
static uint64_t search(pid_t pid, uint64_t start, uint64_t end)
{
    static uint8_t code[65536];
    for (uint64_t at = start; at < end; at += sizeof code - 1) {
        size_t bytes = end - at < sizeof code ? (size_t)(end - at) : sizeof code;
        struct iovec here = {code, bytes}, there = {(void *)at, bytes};
        if (process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)bytes)
            return 0;
        const uint8_t *found = memmem(code, bytes, "\x0f\x05", 2);
        if (found)
            return at + (uint64_t)(found - code);
    }
    return 0;
}

uint64_t find_syscall(pid_t pid)
{
    char path[64], line[4352];
    uint64_t found = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    /* The vDSO has one; in a program without it the others are searched. */
    for (int pass = 0; pass < 2 && !found; pass++) {
        FILE *maps = fopen(path, "re");
        if (!maps)
            return 0;
        while (!found && fgets(line, sizeof line, maps)) {
            unsigned long start, end;
            char permissions[5];
            bool is_vdso = strstr(line, "[vdso]") != NULL;
            if (sscanf(line, "%lx-%lx %4s", &start, &end, permissions) == 3 && permissions[0] == 'r' &&
                permissions[2] == 'x' && (pass == 1 || is_vdso) && !strstr(line, "[vsyscall]"))
                found = search(pid, start, end);
        }
        fclose(maps);
    }
    return found;
}

#else

long inject_syscall(pid_t tid, uint64_t syscall_address, long number, const long arguments[3])
{
    (void)tid, (void)syscall_address, (void)number, (void)arguments;
    errno = ENOSYS;
    return INJECT_FAILED;
}

uint64_t find_syscall(pid_t pid)
{
    (void)pid;
    errno = ENOSYS;
    return 0;
}

#endif
