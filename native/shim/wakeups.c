/*
 * Wake-ups that are under way already. A GLib main context that learns of something new to wait for wakes itself by its eventfd:
 * a monitor of QEMU does so three or four times for each byte of a command, a system call each, and what reads ahead
 * (read_ahead.c) has spared the others. An eventfd says how often it was written to, which nobody asks of this one: until it is
 * read, further writes to it tell nothing, and are left out.
 *
 * That holds for the eventfds of GLib alone, which it reads with read(2), 8 or 16 bytes (by release), and waits for with poll(2);
 * whom KVM or another process reads, and QEMU's own, which are read otherwise, are left as they are. What the kernel says of a
 * descriptor stays true: one that was told is readable, or is about to be.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../core/invariant.h"
#include "wakeups.h"

enum { UNKNOWN, OTHER, QUIET, TOLD };

static _Atomic uint8_t states[WATCHED_FDS];

static bool is_eventfd(int fd)
{
    char path[64], target[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(path, target, sizeof target - 1);
    if (bytes < 0)
        return false;
    SP_INVARIANT((size_t)bytes < sizeof target);
    target[bytes] = 0;
    return strcmp(target, "anon_inode:[eventfd]") == 0;
}

bool wakeup_is_due(int fd, size_t bytes)
{
    if (fd < 0 || fd >= WATCHED_FDS || bytes != sizeof(uint64_t) || atomic_load_explicit(&states[fd], memory_order_relaxed) < QUIET)
        return false;
    /* Also a barrier: whoever finds it told has published before what it wakes the reader for. */
    return atomic_exchange(&states[fd], TOLD) == TOLD;
}

void wakeup_failed(int fd)
{
    if (fd >= 0 && fd < WATCHED_FDS && atomic_load(&states[fd]) == TOLD)
        atomic_store(&states[fd], QUIET);
}

void wakeup_forget(int fd)
{
    if (fd >= 0 && fd < WATCHED_FDS)
        atomic_store(&states[fd], UNKNOWN);
}

#define EXPORTED __attribute__((visibility("default")))

EXPORTED ssize_t read(int fd, void *into, size_t bytes)
{
    if (fd < 0 || fd >= WATCHED_FDS || (bytes != sizeof(uint64_t) && bytes != 2 * sizeof(uint64_t)))
        return syscall(SYS_read, fd, into, bytes);
    ssize_t got = syscall(SYS_read, fd, into, bytes);
    uint8_t state = atomic_load_explicit(&states[fd], memory_order_relaxed);
    if (state >= QUIET)
        /*
         * Not before: the read may take what a writer has told in between, and the next one would leave it. Who left it until now has
         * published before; the reader looks after this.
         */
        atomic_store(&states[fd], QUIET);
    else if (state == UNKNOWN && got == sizeof(uint64_t) && is_polled(fd))
        atomic_store(&states[fd], is_eventfd(fd) ? QUIET : OTHER);
    return got;
}
