/*
 * The shim's threads against the agent's side: the guard of the pause lease with a monitor that answers it, and reading ahead
 * on several sockets at once. Also built with ThreadSanitizer (scripts/test-threads.sh).
 * build with: native/shim/lease.c native/shim/read_ahead.c native/shim/wakeups.c -ldl
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../native/shim/lease.h"
#include "../../native/shim/shim.h"
#include "check.h"

enum { PAUSES = 60, HOLD_NS = 3 * 1000 * 1000, STREAMS = 3, STREAM_BYTES = 20000 };

static char directory[64];

/* As shim.c does; the signals are QEMU's. */
bool shim_thread(void *(*run)(void *))
{
    pthread_t thread;
    return pthread_create(&thread, NULL, run, NULL) == 0 && pthread_detach(thread) == 0;
}

/* ---- the guard */

static atomic_uint continued;

static void send_all(int fd, const char *text)
{
    (void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* A monitor as QEMU's: greets, and answers each line that is a command. */
static void *monitor(void *data)
{
    int listener = *(int *)data;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        char line[1024];
        size_t used = 0;
        send_all(fd, "{\"QMP\":{}}\r\n");
        for (ssize_t got; used < sizeof line && (got = read(fd, line + used, 1)) == 1;) {
            if (line[used++] != '\n')
                continue;
            bool cont = memmem(line, used, "\"cont\"", 6) != NULL;
            if (cont)
                atomic_fetch_add(&continued, 1);
            send_all(fd, cont ? "{\"return\":{},\"id\":\"subpage-guard\"}\r\n"
                              : "{\"return\":{},\"id\":\"subpage-oob\"}\r\n");
            used = 0;
        }
        close(fd);
    }
}

static struct lease *make_lease(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/lease", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && ftruncate(fd, LEASE_FILE_BYTES) == 0);
    close(fd);
    struct lease *lease = lease_map(path);
    CHECK(lease);
    return lease;
}

/* Each pause ends by one of the two, and both agree which: the agent whose renewal fails has lost it to the guard. */
static void test_guard(void)
{
    static int listener;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    pthread_t thread;
    struct lease *lease = make_lease();
    snprintf(address.sun_path, sizeof address.sun_path, "%s/guard", directory);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 8) == 0);
    CHECK(pthread_create(&thread, NULL, monitor, &listener) == 0);
    CHECK(guard_start(lease, address.sun_path));
    unsigned lost = 0;
    for (unsigned n = 0; n < PAUSES; n++) {
        uint64_t held;
        while (!(held = lease_take(lease, HOLD_NS)))
            usleep(200);
        /* Every third one hangs in the midst of its pause. */
        if (n % 3 == 0)
            while (atomic_load(&lease->word) == held)
                usleep(200);
        held = lease_renew(lease, held, HOLD_NS);
        lost += !held || !lease_clear(lease, held);
    }
    while (atomic_load(&lease->word) != LEASE_FREE)
        usleep(200);
    CHECK(lost >= PAUSES / 3 && atomic_load(&lease->expiries) == lost && atomic_load(&continued) == lost);
}

/* ---- reading ahead */

static uint8_t byte_at(unsigned stream, size_t at)
{
    return (uint8_t)(stream * 31 + at * 7 + at / 256);
}

struct stream {
    unsigned number;
    int fds[2];
};

static void *write_stream(void *data)
{
    struct stream *stream = data;
    for (size_t at = 0; at < STREAM_BYTES;) {
        uint8_t piece[700];
        size_t bytes = at % 691 + 1;
        bytes = bytes < STREAM_BYTES - at ? bytes : STREAM_BYTES - at;
        for (size_t n = 0; n < bytes; n++)
            piece[n] = byte_at(stream->number, at + n);
        ssize_t put = write(stream->fds[0], piece, bytes);
        CHECK(put > 0 || errno == EAGAIN);
        at += put > 0 ? (size_t)put : 0;
    }
    return NULL;
}

/* As QEMU reads a monitor: waits, and takes a byte. */
static void *read_stream(void *data)
{
    struct stream *stream = data;
    for (size_t at = 0; at < STREAM_BYTES;) {
        struct pollfd ready = {.fd = stream->fds[1], .events = POLLIN};
        CHECK(poll(&ready, 1, -1) == 1);
        uint8_t byte;
        struct iovec part = {&byte, 1};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        ssize_t got = recvmsg(stream->fds[1], &message, 0);
        if (got < 0 && errno == EAGAIN)
            continue;
        CHECK(got == 1 && byte == byte_at(stream->number, at));
        at++;
    }
    return NULL;
}

static void test_read_ahead(void)
{
    static struct stream streams[STREAMS];
    pthread_t threads[2 * STREAMS];
    for (unsigned n = 0; n < STREAMS; n++) {
        streams[n].number = n;
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, streams[n].fds) == 0);
        CHECK(pthread_create(&threads[2 * n], NULL, write_stream, &streams[n]) == 0);
        CHECK(pthread_create(&threads[2 * n + 1], NULL, read_stream, &streams[n]) == 0);
    }
    for (unsigned n = 0; n < 2 * STREAMS; n++)
        pthread_join(threads[n], NULL);
    for (unsigned n = 0; n < STREAMS; n++) {
        close(streams[n].fds[0]);
        close(streams[n].fds[1]);
    }
}

int main(void)
{
    char command[96];
    strcpy(directory, "/tmp/subpage-test-shim-XXXXXX");
    CHECK(mkdtemp(directory));
    test_read_ahead();
    test_guard();
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command) == 0 ? 0 : 1;
}
