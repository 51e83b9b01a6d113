/*
 * Reads ahead for QEMU's monitors. QEMU reads a control socket one byte at a time, each with a poll(2) and a recvmsg(2) of
 * its own: 10 to 20 us a byte, and a checkpoint needs some 500 bytes, half of them within the pause. Here the first of
 * these bytes brings all that has arrived; the next ones come from memory, and poll(2) says that they are there.
 *
 * It keeps to sockets that it can be sure of: stream sockets, of which QEMU asks for a single byte, and which it waits for
 * with the poll(2) below: what is kept here must not be waited for elsewhere. Whatever asks for more bytes of such a socket
 * gets what is kept first. Order and content stay as they are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../core/invariant.h"
#include "wakeups.h"

#define AHEAD_BYTES 4096

struct ahead {
    size_t at, end;
    char bytes[AHEAD_BYTES];
};

typedef int (*poll_function)(struct pollfd *, nfds_t, int);
typedef ssize_t (*recvmsg_function)(int, struct msghdr *, int);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Of open descriptors: what was read ahead; whether poll(2) has waited for them. */
static struct ahead *kept[WATCHED_FDS];
static _Atomic bool polled[WATCHED_FDS];
/* Descriptors with bytes here: while it is 0 nobody takes the lock. */
static atomic_uint waiting;

static bool has_bytes(int fd)
{
    return fd >= 0 && fd < WATCHED_FDS && kept[fd] && kept[fd]->at < kept[fd]->end;
}

bool is_polled(int fd)
{
    SP_INVARIANT(fd >= 0 && fd < WATCHED_FDS);
    return atomic_load_explicit(&polled[fd], memory_order_relaxed);
}

/* A stream that never makes its reader wait. */
static bool is_stream(int fd)
{
    int type = 0;
    socklen_t bytes = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type == SOCK_STREAM &&
           (fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/* From memory into the caller's parts. */
static ssize_t give(struct ahead *ahead, struct msghdr *message, int flags)
{
    size_t given = 0, begin = ahead->at;
    for (size_t n = 0; n < message->msg_iovlen && ahead->at < ahead->end; n++) {
        size_t left = ahead->end - ahead->at, room = message->msg_iov[n].iov_len;
        size_t bytes = left < room ? left : room;
        SP_INVARIANT(ahead->at + bytes <= sizeof ahead->bytes);
        memcpy(message->msg_iov[n].iov_base, ahead->bytes + ahead->at, bytes);
        ahead->at += bytes;
        given += bytes;
    }
    if (flags & MSG_PEEK)
        ahead->at = begin;
    else if (ahead->at == ahead->end)
        atomic_fetch_sub(&waiting, 1);
    message->msg_namelen = 0;
    message->msg_controllen = 0;
    message->msg_flags = 0;
    return (ssize_t)given;
}

/* With what comes along beside the bytes, such as descriptors: that belongs to the first of them. */
static ssize_t fill(recvmsg_function receive, struct ahead *ahead, int fd, struct msghdr *message, int flags)
{
    struct iovec whole = {ahead->bytes, sizeof ahead->bytes};
    struct msghdr wanted = *message;
    wanted.msg_iov = &whole;
    wanted.msg_iovlen = 1;
    ssize_t bytes = receive(fd, &wanted, flags);
    if (bytes <= 0)
        return bytes;
    *(char *)message->msg_iov[0].iov_base = ahead->bytes[0];
    message->msg_namelen = wanted.msg_namelen;
    message->msg_controllen = wanted.msg_controllen;
    message->msg_flags = wanted.msg_flags;
    ahead->at = 1;
    ahead->end = (size_t)bytes;
    SP_INVARIANT(ahead->end <= sizeof ahead->bytes);
    if (bytes > 1)
        atomic_fetch_add(&waiting, 1);
    return 1;
}

/* The lock is held. NULL: as QEMU does it. */
static struct ahead *ahead_of(int fd, const struct msghdr *message, int flags)
{
    bool single = message->msg_iovlen == 1 && message->msg_iov[0].iov_len == 1;
    if (!single || fd >= WATCHED_FDS || (flags & (MSG_PEEK | MSG_OOB)) || !atomic_load(&polled[fd]))
        return NULL;
    if (!kept[fd] && is_stream(fd))
        kept[fd] = calloc(1, sizeof *kept[fd]);
    return kept[fd];
}

#define EXPORTED __attribute__((visibility("default")))

EXPORTED ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    static _Atomic(recvmsg_function) found;
    recvmsg_function next = atomic_load(&found);
    if (!next)
        atomic_store(&found, next = (recvmsg_function)dlsym(RTLD_NEXT, "recvmsg"));
    bool alone = fd < 0 || fd >= WATCHED_FDS || message->msg_iovlen == 0;
    if (alone || (!atomic_load_explicit(&polled[fd], memory_order_relaxed) && atomic_load(&waiting) == 0))
        return next(fd, message, flags);
    int saved_errno = errno;
    pthread_mutex_lock(&lock);
    struct ahead *ahead = has_bytes(fd) ? kept[fd] : ahead_of(fd, message, flags);
    errno = saved_errno;
    ssize_t bytes = has_bytes(fd) ? give(ahead, message, flags)
                    : ahead       ? fill(next, ahead, fd, message, flags)
                                  : -2;
    saved_errno = errno;
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
    /* Not ours: it may wait, so not under the lock. */
    return bytes == -2 ? next(fd, message, flags) : bytes;
}

/* What is here is ready at once. The others have their turn when it has been read: a command or two later. */
static int ready_here(struct pollfd *fds, nfds_t count)
{
    int ready = 0;
    pthread_mutex_lock(&lock);
    for (nfds_t n = 0; n < count; n++) {
        bool here = (fds[n].events & POLLIN) && has_bytes(fds[n].fd);
        fds[n].revents = here ? POLLIN : 0;
        ready += here;
    }
    pthread_mutex_unlock(&lock);
    return ready;
}

EXPORTED int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    static _Atomic(poll_function) found;
    poll_function next = atomic_load(&found);
    if (!next)
        atomic_store(&found, next = (poll_function)dlsym(RTLD_NEXT, "poll"));
    if (atomic_load_explicit(&waiting, memory_order_acquire) > 0) {
        int ready = ready_here(fds, count);
        if (ready > 0)
            return ready;
    }
    for (nfds_t n = 0; n < count; n++)
        if (fds[n].fd >= 0 && fds[n].fd < WATCHED_FDS)
            atomic_store_explicit(&polled[fds[n].fd], true, memory_order_relaxed);
    return next(fds, count, timeout);
}

/* Whoever gets the number next begins with nothing. */
EXPORTED int close(int fd)
{
    if (fd >= 0 && fd < WATCHED_FDS && atomic_load_explicit(&polled[fd], memory_order_relaxed)) {
        pthread_mutex_lock(&lock);
        if (has_bytes(fd))
            atomic_fetch_sub(&waiting, 1);
        free(kept[fd]);
        kept[fd] = NULL;
        atomic_store(&polled[fd], false);
        wakeup_forget(fd);
        pthread_mutex_unlock(&lock);
    }
    return (int)syscall(SYS_close, fd);
}
