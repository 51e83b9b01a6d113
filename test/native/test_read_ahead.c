/*
 * Reading ahead for a reader that takes a byte at a time: the stream stays as it is, poll(2) knows what is kept, and what does
 * not qualify is left alone. build with: native/shim/read_ahead.c native/shim/wakeups.c -ldl
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

/* Bytes at once, with a room for descriptors; -1 with errno. */
static ssize_t take(int fd, void *into, size_t bytes, int *passed, int flags)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {into, bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    ssize_t got = recvmsg(fd, &message, flags);
    if (passed) {
        *passed = -1;
        struct cmsghdr *first = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
        if (first)
            memcpy(passed, CMSG_DATA(first), sizeof *passed);
    }
    return got;
}

static void pair(int type, int fds[2])
{
    CHECK(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
}

static bool readable(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    return poll(&wanted, 1, 0) == 1 && wanted.revents == POLLIN;
}

static int in_socket(int fd)
{
    int bytes;
    CHECK(ioctl(fd, FIONREAD, &bytes) == 0);
    return bytes;
}

static void test_stream_stays_as_it_is(void)
{
    int fds[2];
    pair(SOCK_STREAM, fds);
    uint8_t sent[10000], got[sizeof sent];
    for (size_t n = 0; n < sizeof sent; n++)
        sent[n] = (uint8_t)(n * 7 + n / 256);
    size_t written = 0, read_so_far = 0;
    for (unsigned round = 0; read_so_far < sizeof sent; round++) {
        size_t piece = (round * 977) % 3000 + 1;
        if (written + piece > sizeof sent)
            piece = sizeof sent - written;
        if (piece > 0)
            CHECK(write(fds[0], sent + written, piece) == (ssize_t)piece);
        written += piece;
        /* Mostly a byte at a time, now and then more: until nothing is there. */
        while (readable(fds[1])) {
            size_t wanted = read_so_far % 101 == 100 ? 17 : 1;
            ssize_t bytes = take(fds[1], got + read_so_far, wanted < sizeof got - read_so_far ? wanted : 1, NULL, 0);
            CHECK(bytes > 0);
            read_so_far += (size_t)bytes;
        }
        CHECK(read_so_far == written);
    }
    CHECK(memcmp(sent, got, sizeof sent) == 0);
    CHECK(take(fds[1], got, 1, NULL, 0) == -1 && errno == EAGAIN);
    close(fds[0]);
    CHECK(readable(fds[1]) == false || take(fds[1], got, 1, NULL, 0) == 0);
    close(fds[1]);
}

static void test_first_byte_brings_the_rest(void)
{
    int fds[2], other[2];
    pair(SOCK_STREAM, fds);
    pair(SOCK_STREAM, other);
    char byte;
    CHECK(!readable(fds[1]));
    CHECK(write(fds[0], "abc", 3) == 3);
    CHECK(take(fds[1], &byte, 1, NULL, 0) == 1 && byte == 'a');
    CHECK(in_socket(fds[1]) == 0);
    /* What is kept is ready; the other one has its turn later. */
    CHECK(write(other[0], "x", 1) == 1);
    struct pollfd both[] = {{.fd = other[1], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
    CHECK(poll(both, 2, -1) == 1 && both[0].revents == 0 && both[1].revents == POLLIN);
    /* Nobody asks for input: nothing is said of it. */
    both[1].events = POLLOUT;
    CHECK(poll(both, 2, -1) == 2 && both[0].revents == POLLIN && both[1].revents == POLLOUT);
    CHECK(take(fds[1], &byte, 1, NULL, MSG_PEEK) == 1 && byte == 'b');
    CHECK(take(fds[1], &byte, 1, NULL, 0) == 1 && byte == 'b');
    CHECK(take(fds[1], &byte, 1, NULL, 0) == 1 && byte == 'c');
    CHECK(!readable(fds[1]));
    for (int n = 0; n < 2; n++) {
        close(fds[n]);
        close(other[n]);
    }
}

static void test_descriptors_come_with_the_first_byte(void)
{
    int fds[2], passed;
    pair(SOCK_STREAM, fds);
    CHECK(!readable(fds[1]));
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec part = {"ab", 2};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fds[0], sizeof(int));
    CHECK(sendmsg(fds[0], &message, 0) == 2);
    char byte;
    CHECK(take(fds[1], &byte, 1, &passed, 0) == 1 && byte == 'a' && passed >= 0);
    close(passed);
    CHECK(take(fds[1], &byte, 1, &passed, 0) == 1 && byte == 'b' && passed == -1);
    close(fds[0]);
    close(fds[1]);
}

static void test_a_closed_one_leaves_nothing(void)
{
    int fds[2], next[2];
    pair(SOCK_STREAM, fds);
    char byte;
    CHECK(!readable(fds[1]));
    CHECK(write(fds[0], "old", 3) == 3);
    CHECK(take(fds[1], &byte, 1, NULL, 0) == 1);
    close(fds[1]);
    close(fds[0]);
    pair(SOCK_STREAM, next);
    CHECK(next[0] == fds[0] && next[1] == fds[1]);
    CHECK(!readable(next[1]));
    CHECK(take(next[1], &byte, 1, NULL, 0) == -1 && errno == EAGAIN);
    close(next[0]);
    close(next[1]);
}

static void test_others_are_left_alone(void)
{
    int never_polled[2], datagrams[2], patient[2];
    char bytes[8];
    pair(SOCK_STREAM, never_polled);
    CHECK(write(never_polled[0], "abc", 3) == 3);
    CHECK(take(never_polled[1], bytes, 1, NULL, 0) == 1 && in_socket(never_polled[1]) == 2);

    pair(SOCK_DGRAM, datagrams);
    CHECK(!readable(datagrams[1]));
    CHECK(write(datagrams[0], "abc", 3) == 3 && write(datagrams[0], "xyz", 3) == 3);
    /* A datagram that is read in part is gone. */
    CHECK(take(datagrams[1], bytes, 1, NULL, 0) == 1 && bytes[0] == 'a');
    CHECK(take(datagrams[1], bytes, 1, NULL, 0) == 1 && bytes[0] == 'x');

    pair(SOCK_STREAM, patient);
    CHECK(fcntl(patient[1], F_SETFL, 0) == 0);
    CHECK(!readable(patient[1]));
    CHECK(write(patient[0], "abc", 3) == 3);
    CHECK(take(patient[1], bytes, 1, NULL, 0) == 1 && in_socket(patient[1]) == 2);

    /* A look does not take. */
    CHECK(fcntl(patient[1], F_SETFL, O_NONBLOCK) == 0);
    CHECK(take(patient[1], bytes, 1, NULL, MSG_PEEK) == 1 && in_socket(patient[1]) == 2);
    for (int n = 0; n < 2; n++) {
        close(never_polled[n]);
        close(datagrams[n]);
        close(patient[n]);
    }
    CHECK(close(-1) == -1 && errno == EBADF);
}

int main(void)
{
    test_stream_stays_as_it_is();
    test_first_byte_brings_the_rest();
    test_descriptors_come_with_the_first_byte();
    test_a_closed_one_leaves_nothing();
    test_others_are_left_alone();
    return 0;
}
