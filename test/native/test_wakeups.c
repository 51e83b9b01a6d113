/*
 * Wake-ups that are under way already are not written again, and none is lost: as GLib uses an eventfd, by one thread and by
 * several; other descriptors are left alone. Also built with ThreadSanitizer (scripts/test-threads.sh).
 * build with: native/shim/wakeups.c native/shim/read_ahead.c native/shim/fence.c -ldl
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"

enum { WRITERS = 2, ROUNDS = 20000 };

static void wake(int fd)
{
    uint64_t one = 1;
    CHECK(write(fd, &one, sizeof one) == sizeof one);
}

/* As GLib of one release or the other. */
static void acknowledge(int fd, size_t bytes)
{
    uint64_t buffer[2];
    ssize_t got = read(fd, buffer, bytes);
    CHECK(got == sizeof(uint64_t) || (got == -1 && errno == EAGAIN));
}

/* What the kernel has counted since it was asked last. */
static uint64_t counted(int fd)
{
    uint64_t count = 0;
    return syscall(SYS_read, fd, &count, sizeof count) == sizeof count ? count : 0;
}

static bool readable(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    return poll(&wanted, 1, 0) == 1 && wanted.revents == POLLIN;
}

static int made(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

/* Waited for, woken and read once. */
static int known(size_t bytes)
{
    int fd = made();
    CHECK(!readable(fd));
    wake(fd);
    CHECK(readable(fd));
    acknowledge(fd, bytes);
    return fd;
}

static void test_tells_once(size_t bytes)
{
    int fd = known(bytes);
    for (int round = 0; round < 3; round++) {
        CHECK(!readable(fd));
        for (int n = 0; n < 5; n++)
            wake(fd);
        CHECK(readable(fd) && readable(fd));
        acknowledge(fd, bytes);
        CHECK(!readable(fd));
    }
    for (int n = 0; n < 5; n++)
        wake(fd);
    CHECK(counted(fd) == 1);
    close(fd);
}

static void test_others_count_each(void)
{
    int unpolled = made(), other_size = made(), fds[2];
    wake(unpolled);
    acknowledge(unpolled, 16);
    CHECK(!readable(other_size));
    wake(other_size);
    uint64_t room[64];
    CHECK(read(other_size, room, sizeof room) == sizeof(uint64_t));
    int never_read = made();
    CHECK(!readable(never_read));
    for (int n = 0; n < 5; n++) {
        wake(unpolled);
        wake(other_size);
        wake(never_read);
    }
    CHECK(counted(unpolled) == 5 && counted(other_size) == 5 && counted(never_read) == 5);

    /* A pipe of which eight bytes are read is none. */
    CHECK(pipe(fds) == 0);
    uint64_t word = 1;
    CHECK(!readable(fds[0]));
    CHECK(write(fds[1], &word, sizeof word) == sizeof word && read(fds[0], &word, sizeof word) == sizeof word);
    CHECK(write(fds[1], &word, sizeof word) == sizeof word && write(fds[1], &word, sizeof word) == sizeof word);
    CHECK(read(fds[0], room, sizeof room) == 2 * sizeof word);

    /* More than a wake-up is written. */
    int fd = known(8);
    wake(fd);
    CHECK(write(fd, room, 4) == -1 && errno == EINVAL);
    close(fd);
    for (int n = 0; n < 2; n++)
        close(fds[n]);
    close(unpolled);
    close(other_size);
    close(never_read);
}

static void test_a_closed_one_leaves_nothing(void)
{
    int fd = known(16);
    wake(fd);
    close(fd);
    CHECK(made() == fd);
    for (int n = 0; n < 5; n++)
        wake(fd);
    CHECK(counted(fd) == 5);
    close(fd);
    uint64_t word = 7;
    CHECK(write(fd, &word, sizeof word) == -1 && errno == EBADF);
}

/* One that could not be written has told nobody. */
static void test_a_failed_write_is_none(void)
{
    int fd = known(16);
    uint64_t most = UINT64_MAX - 1, one = 1;
    CHECK(syscall(SYS_write, fd, &most, sizeof most) == sizeof most);
    CHECK(write(fd, &one, sizeof one) == -1 && errno == EAGAIN);
    CHECK(counted(fd) == most);
    CHECK(write(fd, &one, sizeof one) == sizeof one && counted(fd) == 1);
    close(fd);
}

static struct {
    int fd;
    _Atomic unsigned round, published;
} shared;

/* Once in each round, both at about the same time. */
static void *publish(void *unused)
{
    for (unsigned round = 1; round <= ROUNDS; round++) {
        while (atomic_load(&shared.round) < round)
            sched_yield();
        atomic_fetch_add(&shared.published, 1);
        wake(shared.fd);
    }
    return unused;
}

/* Whoever is woken finds what it was woken for: a lost wake-up would leave it waiting for ever, as nobody writes again in this round. */
static void test_none_is_lost(void)
{
    shared.fd = known(16);
    pthread_t writers[WRITERS];
    for (int n = 0; n < WRITERS; n++)
        CHECK(pthread_create(&writers[n], NULL, publish, NULL) == 0);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        atomic_store(&shared.round, round);
        while (atomic_load(&shared.published) < WRITERS * round) {
            struct pollfd wanted = {.fd = shared.fd, .events = POLLIN};
            CHECK(poll(&wanted, 1, 60000) == 1);
            acknowledge(shared.fd, 16);
        }
    }
    for (int n = 0; n < WRITERS; n++)
        CHECK(pthread_join(writers[n], NULL) == 0);
    close(shared.fd);
}

int main(void)
{
    test_tells_once(16);
    test_tells_once(8);
    test_others_count_each();
    test_a_closed_one_leaves_nothing();
    test_a_failed_write_is_none();
    test_none_is_lost();
    return 0;
}
