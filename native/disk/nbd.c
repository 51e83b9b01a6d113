/* See nbd.h. All that comes from the socket is untrusted: a length is checked before it is used. */
#define _GNU_SOURCE
#include "nbd.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "../core/bytes.h"
#include "../core/invariant.h"
#include "nbd_protocol.h"

/* For the whole negotiation. Afterwards a client may be silent for as long as its guest writes nothing. */
#ifndef NBD_NEGOTIATION_MS
#define NBD_NEGOTIATION_MS 10000
#endif

enum {
    /* What stays of the buffer for requests after a longer one. */
    KEPT_BYTES = 2 << 20,
    STACK_BYTES = 256 << 10,
    BACKLOG = 4,
    RETRY_MS = 100,
};

struct nbd_server {
    struct journal *journal;
    uint64_t disk_bytes;
    struct sockaddr_un address;
    dev_t device;
    ino_t inode;
    int listener, stop;
    pthread_t thread;
    pthread_mutex_t lock; /* over the next two */
    int client; /* -1: none */
    bool ending;
    uint8_t *buffer; /* JOURNAL_WRITE_BYTES_MAX */
    bool no_zeroes;
    uint64_t deadline_ms; /* of the negotiation */
    _Atomic bool connected;
    _Atomic uint64_t connections, flushes, requests;
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* ---- the socket. False: the client is gone, or has been too slow. */

static bool receive(const struct nbd_server *server, int fd, void *into, size_t bytes)
{
    uint8_t *at = into;
    while (bytes > 0) {
        ssize_t got = recv(fd, at, bytes, MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 || (server->deadline_ms && now_ms() > server->deadline_ms))
            return false;
        SP_INVARIANT((size_t)got <= bytes);
        at += got;
        bytes -= (size_t)got;
    }
    return true;
}

static bool transmit(int fd, const void *from, size_t bytes)
{
    const uint8_t *at = from;
    while (bytes > 0) {
        ssize_t sent = send(fd, at, bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        SP_INVARIANT((size_t)sent <= bytes);
        at += sent;
        bytes -= (size_t)sent;
    }
    return true;
}

/* 0 milliseconds: without limit. */
static void limit_waits(int fd, unsigned milliseconds)
{
    struct timeval limit = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

/* ---- negotiation */

static bool option_reply(int fd, uint32_t option, uint32_t type, const void *data, uint32_t bytes)
{
    uint8_t reply[NBD_OPTION_REPLY_BYTES + 64];
    SP_INVARIANT(bytes <= 64);
    put64(reply, NBD_OPTION_REPLY_MAGIC);
    put32(reply + 8, option);
    put32(reply + 12, type);
    put32(reply + 16, bytes);
    if (bytes)
        memcpy(reply + NBD_OPTION_REPLY_BYTES, data, bytes);
    return transmit(fd, reply, NBD_OPTION_REPLY_BYTES + bytes);
}

/* A name of 32 bits of length, how many requests of information, and those, 16 bits each. */
static bool info_request_valid(const uint8_t *data, uint32_t bytes)
{
    if (bytes < 6)
        return false;
    uint32_t name = get32(data);
    if (name > NBD_NAME_BYTES_MAX || name > bytes - 6)
        return false;
    return (uint64_t)get16(data + 4 + name) * 2 == bytes - 6 - name;
}

/* Whatever was asked for, the client is told the size and the limits: it may ignore what it does not know. */
static bool send_info(const struct nbd_server *server, int fd, uint32_t option)
{
    uint8_t export[12], blocks[14];
    put16(export, NBD_INFO_EXPORT);
    put64(export + 2, server->disk_bytes);
    put16(export + 10, NBD_TRANSMISSION_FLAGS);
    put16(blocks, NBD_INFO_BLOCK_SIZE);
    put32(blocks + 2, 1);
    put32(blocks + 6, 4096);
    put32(blocks + 10, JOURNAL_WRITE_BYTES_MAX);
    return option_reply(fd, option, NBD_REP_INFO, export, sizeof export) &&
           option_reply(fd, option, NBD_REP_INFO, blocks, sizeof blocks) &&
           option_reply(fd, option, NBD_REP_ACK, NULL, 0);
}

static bool send_export(const struct nbd_server *server, int fd)
{
    uint8_t reply[10 + 124] = {0};
    put64(reply, server->disk_bytes);
    put16(reply + 8, NBD_TRANSMISSION_FLAGS);
    return transmit(fd, reply, server->no_zeroes ? 10 : sizeof reply);
}

enum step { STEP_MORE, STEP_SERVE, STEP_CLOSE };

static enum step continue_if(bool sent)
{
    return sent ? STEP_MORE : STEP_CLOSE;
}

/* There is one export on the socket, so every name names it. */
static enum step answer_option(const struct nbd_server *server, int fd, uint32_t option, uint32_t bytes)
{
    const uint8_t no_name[4] = {0};
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        return bytes <= NBD_NAME_BYTES_MAX && send_export(server, fd) ? STEP_SERVE : STEP_CLOSE;
    case NBD_OPT_ABORT:
        (void)option_reply(fd, option, NBD_REP_ACK, NULL, 0);
        return STEP_CLOSE;
    case NBD_OPT_LIST:
        if (bytes != 0)
            return continue_if(option_reply(fd, option, NBD_REP_ERR_INVALID, NULL, 0));
        return continue_if(option_reply(fd, option, NBD_REP_SERVER, no_name, sizeof no_name) &&
                           option_reply(fd, option, NBD_REP_ACK, NULL, 0));
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        if (!info_request_valid(server->buffer, bytes))
            return continue_if(option_reply(fd, option, NBD_REP_ERR_INVALID, NULL, 0));
        if (!send_info(server, fd, option))
            return STEP_CLOSE;
        return option == NBD_OPT_GO ? STEP_SERVE : STEP_MORE;
    default:
        return continue_if(option_reply(fd, option, NBD_REP_ERR_UNSUP, NULL, 0));
    }
}

/* True: the client may send requests. */
static bool negotiate(struct nbd_server *server, int fd)
{
    uint8_t greeting[18], flags[4], header[NBD_OPTION_BYTES];
    put64(greeting, NBD_MAGIC);
    put64(greeting + 8, NBD_OPTION_MAGIC);
    put16(greeting + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    if (!transmit(fd, greeting, sizeof greeting) || !receive(server, fd, flags, sizeof flags))
        return false;
    if ((get32(flags) & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) != 0)
        return false;
    server->no_zeroes = get32(flags) & NBD_FLAG_NO_ZEROES;
    for (;;) {
        if (!receive(server, fd, header, sizeof header) || get64(header) != NBD_OPTION_MAGIC)
            return false;
        uint32_t option = get32(header + 8), bytes = get32(header + 12);
        if (bytes > NBD_OPTION_BYTES_MAX || !receive(server, fd, server->buffer, bytes))
            return false;
        enum step step = answer_option(server, fd, option, bytes);
        if (step != STEP_MORE)
            return step == STEP_SERVE;
    }
}

/* ---- transmission */

static bool reply(struct nbd_server *server, int fd, uint64_t cookie, uint32_t error)
{
    uint8_t bytes[NBD_REPLY_BYTES];
    put32(bytes, NBD_REPLY_MAGIC);
    put32(bytes + 4, error);
    store64(bytes + 8, cookie);
    server->requests++;
    return transmit(fd, bytes, sizeof bytes);
}

/* Receives the data of a write and gives it to the journal. Returns false when the connection must end. */
static bool serve_write(struct nbd_server *server, int fd, const struct nbd_request *request)
{
    /* It is not read for the sake of an answer. */
    if (request->length > JOURNAL_WRITE_BYTES_MAX || !receive(server, fd, server->buffer, request->length))
        return false;
    uint32_t error = 0;
    if (request->flags & ~(unsigned)NBD_CMD_FLAG_FUA)
        error = NBD_EINVAL;
    else if (request->offset > server->disk_bytes || request->length > server->disk_bytes - request->offset)
        error = NBD_ENOSPC;
    else if (request->length > 0)
        switch (journal_write(server->journal, request->offset, server->buffer, request->length)) {
        case 0:
            break;
        case ENOMEM:
            error = NBD_ENOMEM;
            break;
        default:
            return false;
        }
    if (request->length > KEPT_BYTES)
        madvise(server->buffer + KEPT_BYTES, JOURNAL_WRITE_BYTES_MAX - KEPT_BYTES, MADV_DONTNEED);
    return reply(server, fd, request->cookie, error);
}

/* False: the connection ends. */
static bool serve_request(struct nbd_server *server, int fd)
{
    uint8_t header[NBD_REQUEST_BYTES];
    if (!receive(server, fd, header, sizeof header) || get32(header) != NBD_REQUEST_MAGIC)
        return false;
    struct nbd_request request = {
        .flags = get16(header + 4),
        .type = get16(header + 6),
        .cookie = load64(header + 8),
        .offset = get64(header + 16),
        .length = get32(header + 24),
    };
    switch (request.type) {
    case NBD_CMD_WRITE:
        return serve_write(server, fd, &request);
    case NBD_CMD_FLUSH:
        /* The source has been flushed; what the standby must have on its disk is a matter of checkpoints. */
        if (request.flags & ~(unsigned)NBD_CMD_FLAG_FUA || request.offset || request.length)
            return reply(server, fd, request.cookie, NBD_EINVAL);
        server->flushes++;
        return reply(server, fd, request.cookie, 0);
    case NBD_CMD_DISC:
        return false;
    case NBD_CMD_READ:
        return reply(server, fd, request.cookie, NBD_EPERM);
    default:
        return reply(server, fd, request.cookie, NBD_EINVAL);
    }
}

static void serve_client(struct nbd_server *server, int fd)
{
    server->deadline_ms = now_ms() + NBD_NEGOTIATION_MS;
    limit_waits(fd, NBD_NEGOTIATION_MS);
    if (!negotiate(server, fd))
        return;
    server->deadline_ms = 0;
    limit_waits(fd, 0);
    server->connections++;
    server->connected = true;
    while (serve_request(server, fd)) {
    }
    server->connected = false;
}

/* ---- the thread */

/* The next client; -1: the server ends. */
static int next_client(struct nbd_server *server)
{
    for (;;) {
        struct pollfd waits[2] = {{.fd = server->stop, .events = POLLIN}, {.fd = server->listener, .events = POLLIN}};
        if (poll(waits, 2, -1) < 0)
            continue;
        if (waits[0].revents)
            return -1;
        int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            return fd;
        /* No descriptor is free, say: that passes. */
        if (errno != EINTR && errno != EAGAIN && errno != ECONNABORTED)
            (void)poll(waits, 1, RETRY_MS);
    }
}

static void *serve(void *context)
{
    struct nbd_server *server = context;
    int fd;
    while ((fd = next_client(server)) >= 0) {
        pthread_mutex_lock(&server->lock);
        server->client = fd;
        bool ending = server->ending;
        pthread_mutex_unlock(&server->lock);
        if (!ending)
            serve_client(server, fd);
        pthread_mutex_lock(&server->lock);
        server->client = -1;
        pthread_mutex_unlock(&server->lock);
        close(fd);
    }
    return NULL;
}

/* With all signals blocked: those of the process are for its own threads. Returns 0 or an errno. */
static int start_thread(struct nbd_server *server)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&server->thread, &attributes, serve, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!error)
        pthread_setname_np(server->thread, "disk-nbd");
    return error;
}

/* ---- life */

static bool remove_old_socket(const char *path)
{
    struct stat status;
    if (lstat(path, &status) < 0)
        return errno == ENOENT;
    if (!S_ISSOCK(status.st_mode)) {
        errno = EEXIST;
        return false;
    }
    return unlink(path) == 0 || errno == ENOENT;
}

/* The mode of an unbound socket is that of the file which bind makes. */
static bool listen_at(struct nbd_server *server, const char *path)
{
    struct stat status;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof server->address.sun_path) {
        errno = length == 0 ? EINVAL : ENAMETOOLONG;
        return false;
    }
    server->address.sun_family = AF_UNIX;
    memcpy(server->address.sun_path, path, length + 1);
    if (!remove_old_socket(path))
        return false;
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->listener < 0 || fchmod(server->listener, 0600) < 0 ||
        bind(server->listener, (const struct sockaddr *)&server->address, sizeof server->address) < 0 ||
        lstat(path, &status) < 0)
        return false;
    server->device = status.st_dev;
    server->inode = status.st_ino;
    return listen(server->listener, BACKLOG) == 0;
}

/* Whoever replaced our socket keeps the other one. */
static void remove_own_socket(const struct nbd_server *server)
{
    struct stat status;
    const char *path = server->address.sun_path;
    if (server->inode != 0 && lstat(path, &status) == 0 && status.st_dev == server->device &&
        status.st_ino == server->inode)
        (void)unlink(path);
}

static void release(struct nbd_server *server)
{
    int error = errno;
    remove_own_socket(server);
    if (server->listener >= 0)
        close(server->listener);
    if (server->stop >= 0)
        close(server->stop);
    if (server->buffer)
        munmap(server->buffer, JOURNAL_WRITE_BYTES_MAX);
    pthread_mutex_destroy(&server->lock);
    free(server);
    errno = error;
}

struct nbd_server *nbd_serve(const char *path, uint64_t disk_bytes, struct journal *journal)
{
    struct nbd_server *server = calloc(1, sizeof *server);
    if (!server)
        return NULL;
    server->journal = journal;
    server->disk_bytes = disk_bytes;
    server->listener = server->client = -1;
    pthread_mutex_init(&server->lock, NULL);
    server->stop = eventfd(0, EFD_CLOEXEC);
    void *buffer = mmap(NULL, JOURNAL_WRITE_BYTES_MAX, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (buffer != MAP_FAILED)
        server->buffer = buffer;
    if (server->buffer && server->stop >= 0 && listen_at(server, path)) {
        int error = start_thread(server);
        if (!error)
            return server;
        errno = error;
    }
    release(server);
    return NULL;
}

void nbd_end(struct nbd_server *server)
{
    const uint64_t one = 1;
    journal_stop(server->journal);
    pthread_mutex_lock(&server->lock);
    server->ending = true;
    if (server->client >= 0)
        (void)shutdown(server->client, SHUT_RDWR);
    pthread_mutex_unlock(&server->lock);
    SP_INVARIANT(write(server->stop, &one, sizeof one) == sizeof one);
    pthread_join(server->thread, NULL);
    release(server);
}

void nbd_read_stats(const struct nbd_server *server, struct nbd_stats *stats)
{
    *stats = (struct nbd_stats){
        .connected = server->connected,
        .connections = server->connections,
        .flushes = server->flushes,
        .requests = server->requests,
    };
}
