/*
 * The guard: a thread inside QEMU that resumes the guest when the agent has let a pause lease run out (lease.h).
 *
 * It asks QEMU by QMP, on a monitor of its own, so it needs nothing of QEMU's insides. It sleeps 20 ms at a time;
 * a futex would save those wake-ups but cost the agent a system call and a thread switch in every pause.
 */
#define _GNU_SOURCE
#include "lease.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../core/invariant.h"
#include "shim.h"

#define IDLE_NS (20u * 1000 * 1000)
#define RETRY_NS_MAX (1000u * 1000 * 1000)
#define GREETING_MS_MAX 2000
/* QEMU may refuse `cont` for good, as in a guest that must be reset first. */
#define REFUSAL_COUNT_MAX 5

static struct lease *lease;
static int lease_fd;
static struct sockaddr_un monitor = {.sun_family = AF_UNIX};

static void sleep_ns(uint64_t ns)
{
    struct timespec span = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    nanosleep(&span, NULL);
}

struct reader {
    int fd;
    size_t used;
    char text[8192];
};

/* Reads one line, without its end, into `line`. False at the end of the stream or after `timeout_ms` (-1: never). */
static bool read_line(struct reader *reader, char *line, size_t room, int timeout_ms)
{
    for (;;) {
        char *end = memchr(reader->text, '\n', reader->used);
        if (end) {
            size_t length = (size_t)(end - reader->text), kept = length < room - 1 ? length : room - 1;
            SP_INVARIANT(length < reader->used && kept < room);
            memcpy(line, reader->text, kept);
            line[kept] = 0;
            reader->used -= length + 1;
            memmove(reader->text, end + 1, reader->used);
            return true;
        }
        /* No answer that we wait for is this long: forget the start of the line. */
        if (reader->used == sizeof reader->text)
            reader->used = 0;
        struct pollfd ready = {.fd = reader->fd, .events = POLLIN};
        if (poll(&ready, 1, timeout_ms) <= 0)
            return false;
        ssize_t count = read(reader->fd, reader->text + reader->used, sizeof reader->text - reader->used);
        if (count <= 0)
            return false;
        reader->used += (size_t)count;
    }
}

enum outcome { RESUMED, REFUSED, UNREACHED };

/*
 * Once `cont` is sent, waits for its answer without a limit: the lease must not become free while a `cont` of ours may
 * still be waiting in QEMU. A lost connection is safe to retry, since QEMU drops the requests of a closed monitor and
 * runs those of the next one later.
 */
static enum outcome converse(int fd)
{
    static const char request[] =
        "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"cont\",\"id\":\"subpage-guard\"}\n";
    struct reader reader = {.fd = fd};
    char line[1024];
    if (!read_line(&reader, line, sizeof line, GREETING_MS_MAX))
        return UNREACHED;
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)(sizeof request - 1))
        return UNREACHED;
    while (read_line(&reader, line, sizeof line, -1)) {
        if (!strstr(line, "\"subpage-guard\""))
            continue;
        return strstr(line, "\"error\"") ? REFUSED : RESUMED;
    }
    return UNREACHED;
}

/*
 * One command for each node: one that QEMU has dropped already refuses only its own. Out of band, for QEMU may be waiting for such a
 * write within a command. The answers come when it has cut; a connection that is closed before would take the requests with it.
 */
static void cut_mirrors(int fd)
{
    static const char negotiation[] =
        "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}\n";
    struct reader reader = {.fd = fd};
    char line[1024], request[512];
    unsigned asked = 0;
    if (!read_line(&reader, line, sizeof line, GREETING_MS_MAX) ||
        send(fd, negotiation, sizeof negotiation - 1, MSG_NOSIGNAL) != (ssize_t)(sizeof negotiation - 1))
        return;
    const char *names = (const char *)lease + LEASE_MIRRORS, *end = (const char *)lease + LEASE_FILE_BYTES;
    for (const char *name = names; name < end && *name; name += strnlen(name, (size_t)(end - name)) + 1) {
        int bytes = snprintf(request, sizeof request,
                             "{\"exec-oob\":\"yank\",\"id\":\"subpage-yank\",\"arguments\":{\"instances\":[{\"type\":"
                             "\"block-node\",\"node-name\":\"%.*s\"}]}}\n",
                             (int)strnlen(name, (size_t)(end - name)), name);
        SP_INVARIANT(bytes > 0);
        if ((size_t)bytes < sizeof request && send(fd, request, (size_t)bytes, MSG_NOSIGNAL) == bytes)
            asked++;
    }
    while (asked > 0 && read_line(&reader, line, sizeof line, GREETING_MS_MAX))
        if (strstr(line, "\"subpage-yank\""))
            asked--;
}

static int connect_monitor(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&monitor, sizeof monitor) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void release_mirrors(void)
{
    int fd = connect_monitor();
    if (fd < 0)
        return;
    cut_mirrors(fd);
    close(fd);
}

static enum outcome resume_guest(void)
{
    int fd = connect_monitor();
    if (fd < 0)
        return UNREACHED;
    enum outcome outcome = converse(fd);
    close(fd);
    return outcome;
}

static void resume_until_done(void)
{
    uint64_t wait_ns = 1000 * 1000;
    for (unsigned refusals = 0;;) {
        enum outcome outcome = resume_guest();
        if (outcome == RESUMED)
            break;
        if (outcome == REFUSED && ++refusals == REFUSAL_COUNT_MAX) {
            fprintf(stderr, "subpage shim: the pause ran out and QEMU refused to resume the guest\n");
            break;
        }
        sleep_ns(wait_ns);
        if ((wait_ns *= 2) > RETRY_NS_MAX)
            wait_ns = RETRY_NS_MAX;
    }
    lease_finish(lease);
}

/* Whether a pause that was held by the lock of the file has lost its holder. */
static bool take_orphan(void)
{
    if (atomic_load(&lease->word) != LEASE_LOCKED || flock(lease_fd, LOCK_EX | LOCK_NB) < 0)
        return false;
    bool orphaned = lease_orphaned(lease);
    flock(lease_fd, LOCK_UN);
    return orphaned;
}

static void *guard(void *unused)
{
    (void)unused;
    pthread_setname_np(pthread_self(), "subpage-guard");
    /* QEMU itself died or restarted with an old file: what the predecessor began is taken up. */
    for (;;) {
        uint64_t now = lease_now_ns();
        if (lease_mirrors_expire(lease, now))
            release_mirrors();
        if (lease_expire(lease, now) || take_orphan() || atomic_load(&lease->word) == LEASE_EXPIRED) {
            resume_until_done();
            continue;
        }
        uint64_t word = atomic_load(&lease->word);
        bool soon = lease_is_deadline(word) && word > now && word - now < IDLE_NS;
        sleep_ns(soon ? word - now : IDLE_NS);
    }
    return NULL;
}

struct lease *lease_map(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return NULL;
    struct stat file;
    void *page = MAP_FAILED;
    if (fstat(fd, &file) == 0 && file.st_size >= LEASE_FILE_BYTES)
        page = mmap(NULL, LEASE_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    else
        errno = EINVAL;
    if (page == MAP_FAILED) {
        int error = errno;
        close(fd);
        errno = error;
        return NULL;
    }
    lease_fd = fd;
    return page;
}

bool guard_start(struct lease *mapped, const char *qmp_path)
{
    if (strlen(qmp_path) >= sizeof monitor.sun_path) {
        errno = ENAMETOOLONG;
        return false;
    }
    strcpy(monitor.sun_path, qmp_path);
    lease = mapped;
    return shim_thread(guard);
}
