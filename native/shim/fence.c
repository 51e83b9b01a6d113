/* The fence at the taps: fence.h. The rest of QEMU's writes pass after one look at a word, or at most one fstat(2). */
#define _GNU_SOURCE
#include "fence.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "wakeups.h"

/* Of /dev/net/tun (Documentation/admin-guide/devices.txt). */
#define TUN_MAJOR 10
#define TUN_MINOR 200
/* A debugger that steps through the sequence would interrupt it for ever. */
#define INTERRUPTIONS_MAX 1000

static struct lease *_Atomic lease;

/* The start of the kernel's struct rseq (linux/rseq.h), which glibc keeps for each thread. */
struct rseq_area {
    uint32_t cpu_id_start;
    int32_t cpu_id;
    uint64_t sequence;
};
_Static_assert(offsetof(struct rseq_area, sequence) == 8, "the layout is the kernel's");

static ptrdiff_t rseq_offset;

void fence_start(struct lease *mapped)
{
    /* Looked up: an older glibc has neither. */
    const unsigned *size = dlsym(RTLD_DEFAULT, "__rseq_size");
    const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
    rseq_offset = size && offset && *size > 0 ? *offset : 0;
    atomic_store(&lease, mapped);
}

static bool is_tap(int fd)
{
    struct stat file;
    int saved_errno = errno;
    bool tap = fstat(fd, &file) == 0 && S_ISCHR(file.st_mode) && file.st_rdev == makedev(TUN_MAJOR, TUN_MINOR);
    errno = saved_errno;
    return tap;
}

static bool may_speak(const struct lease *fence)
{
    uint64_t until = atomic_load_explicit(&fence->speak_until, memory_order_relaxed);
    return until == SPEAK_FREELY || speak_now_ns() < until;
}

enum outcome { SENT, LATE, INTERRUPTED };

#if defined(__x86_64__)

/* Made by the assembler below: from the look at `sequence` up to and with the system call. */
extern const char subpage_fence_sequence[] __attribute__((visibility("hidden")));

static struct rseq_area *rseq_area(void)
{
    if (rseq_offset == 0)
        return NULL;
    struct rseq_area *area = (struct rseq_area *)((char *)__builtin_thread_pointer() + rseq_offset);
    return area->cpu_id >= 0 ? area : NULL;
}

/*
 * The kernel clears `sequence` when it interrupts the thread outside of the two labels, as while the clock is read, and
 * jumps to the abort label when it does so between them. That label follows the signature that glibc registered.
 */
__attribute__((noinline, noclone)) static enum outcome
send_uninterrupted(const struct lease *fence, struct rseq_area *area, long number, int fd, const void *data, size_t count,
                   long *result)
{
    volatile uint64_t *sequence = &area->sequence;
    *sequence = (uint64_t)(uintptr_t)subpage_fence_sequence;
    if (!may_speak(fence)) {
        *sequence = 0;
        return LATE;
    }
    int interrupted;
    long value = number;
    __asm__ volatile(".pushsection .data.rel.ro.subpage_fence, \"aw\"\n"
                     ".balign 32\n"
                     ".hidden subpage_fence_sequence\n"
                     ".globl subpage_fence_sequence\n"
                     "subpage_fence_sequence:\n"
                     ".long 0, 0\n"
                     ".quad 1f, 2f - 1f, 3f\n"
                     ".popsection\n"
                     "movl $1, %[interrupted]\n"
                     "1:\n"
                     "cmpq %[wanted], %[sequence]\n"
                     "jne 3f\n"
                     "syscall\n"
                     "2:\n"
                     "movl $0, %[interrupted]\n"
                     "jmp 3f\n"
                     ".byte 0x0f, 0xb9, 0x3d\n"
                     ".long 0x53053053\n"
                     "3:\n"
                     : "+a"(value), [interrupted] "=&r"(interrupted), [sequence] "+m"(*sequence)
                     : "D"((long)fd), "S"(data), "d"(count), [wanted] "r"(subpage_fence_sequence)
                     : "rcx", "r11", "cc", "memory");
    *sequence = 0;
    *result = value;
    return interrupted ? INTERRUPTED : SENT;
}

#else

static struct rseq_area *rseq_area(void)
{
    return NULL;
}

static enum outcome send_uninterrupted(const struct lease *fence, struct rseq_area *area, long number, int fd,
                                       const void *data, size_t count, long *result)
{
    (void)fence, (void)area, (void)number, (void)fd, (void)data, (void)count, (void)result;
    return INTERRUPTED;
}

#endif

static bool send_in_time(const struct lease *fence, long number, int fd, const void *data, size_t count, long *result)
{
    struct rseq_area *area = rseq_area();
    for (int n = 0; area && n < INTERRUPTIONS_MAX; n++) {
        enum outcome outcome = send_uninterrupted(fence, area, number, fd, data, count, result);
        if (outcome != INTERRUPTED)
            return outcome == SENT;
    }
    if (!may_speak(fence))
        return false;
    *result = syscall(number, fd, data, count);
    if (*result < 0)
        *result = -errno;
    return true;
}

/* False when it came too late: then the caller is told that all of it was sent. */
static bool fenced(long number, int fd, const void *data, size_t count, ssize_t *result)
{
    struct lease *fence = atomic_load_explicit(&lease, memory_order_acquire);
    long value = 0;
    if (!fence || atomic_load_explicit(&fence->speak_until, memory_order_relaxed) == SPEAK_FREELY || !is_tap(fd)) {
        *result = syscall(number, fd, data, count);
        return true;
    }
    if (!send_in_time(fence, number, fd, data, count, &value)) {
        atomic_fetch_add(&fence->silenced, 1);
        return false;
    }
    *result = value < 0 ? -1 : value;
    if (value < 0)
        errno = (int)-value;
    return true;
}

#define EXPORTED __attribute__((visibility("default")))

EXPORTED ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t result;
    if (fenced(SYS_writev, fd, parts, (size_t)count, &result))
        return result;
    result = 0;
    for (int n = 0; n < count; n++)
        result += (ssize_t)parts[n].iov_len;
    return result;
}

EXPORTED ssize_t write(int fd, const void *data, size_t bytes)
{
    if (wakeup_is_due(fd, bytes))
        return (ssize_t)bytes;
    ssize_t result;
    if (!fenced(SYS_write, fd, data, bytes, &result))
        return (ssize_t)bytes;
    if (result < 0)
        wakeup_failed(fd);
    return result;
}
