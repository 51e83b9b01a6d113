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
#define ANSWER_LOOK_MS 20
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

/*
 * The connection to the monitor. It is made and negotiated ahead of need: QEMU negotiates in its main loop, which may stand still
 * just when a mirror is to be cut, since a `stop` waits for the write that waits for it; what comes out of band is served even then.
 */
static struct {
    int fd; /* -1: none */
    size_t used;
    char text[8192];
} guard_link;

enum line { LINE, NO_LINE, CLOSED };

static void close_link(void)
{
    if (guard_link.fd >= 0)
        close(guard_link.fd);
    guard_link.fd = -1;
    guard_link.used = 0;
}

/* Reads one line, without its end, into `line`, waiting for at most `timeout_ms`. */
static enum line read_line(char *line, size_t room, int timeout_ms)
{
    for (;;) {
        char *end = memchr(guard_link.text, '\n', guard_link.used);
        if (end) {
            size_t length = (size_t)(end - guard_link.text), kept = length < room - 1 ? length : room - 1;
            SP_INVARIANT(length < guard_link.used && kept < room);
            memcpy(line, guard_link.text, kept);
            line[kept] = 0;
            guard_link.used -= length + 1;
            memmove(guard_link.text, end + 1, guard_link.used);
            return LINE;
        }
        /* No answer that we wait for is this long: forget the start of the line. */
        if (guard_link.used == sizeof guard_link.text)
            guard_link.used = 0;
        struct pollfd ready = {.fd = guard_link.fd, .events = POLLIN};
        if (poll(&ready, 1, timeout_ms) <= 0)
            return NO_LINE;
        ssize_t count = read(guard_link.fd, guard_link.text + guard_link.used, sizeof guard_link.text - guard_link.used);
        if (count <= 0)
            return CLOSED;
        guard_link.used += (size_t)count;
    }
}

static bool send_text(const char *text, size_t bytes)
{
    return send(guard_link.fd, text, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

/* Waits for a line with this in it. False: the link is closed, or nothing came for GREETING_MS_MAX. */
static bool await_line(const char *what)
{
    char line[1024];
    while (read_line(line, sizeof line, GREETING_MS_MAX) == LINE)
        if (strstr(line, what))
            return true;
    return false;
}

static bool connect_link(void)
{
    static const char negotiation[] =
        "{\"execute\":\"qmp_capabilities\",\"id\":\"subpage-oob\",\"arguments\":{\"enable\":[\"oob\"]}}\n";
    if (guard_link.fd >= 0)
        return true;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    guard_link.fd = fd;
    if (connect(fd, (struct sockaddr *)&monitor, sizeof monitor) == 0 && await_line("\"QMP\"") &&
        send_text(negotiation, sizeof negotiation - 1) && await_line("\"subpage-oob\""))
        return true;
    close_link();
    return false;
}

/* Events come too: what nobody reads QEMU would keep. */
static void drain_link(void)
{
    char line[1024];
    enum line got = LINE;
    while (guard_link.fd >= 0 && (got = read_line(line, sizeof line, 0)) == LINE)
        ;
    if (got == CLOSED)
        close_link();
}

/* One command for each node: one that QEMU has dropped already refuses only its own. Returns how many answers will come. */
static unsigned send_yanks(void)
{
    char request[512];
    unsigned asked = 0;
    const char *names = (const char *)lease + LEASE_MIRRORS, *end = (const char *)lease + LEASE_FILE_BYTES;
    for (const char *name = names; name < end && *name; name += strnlen(name, (size_t)(end - name)) + 1) {
        int bytes = snprintf(request, sizeof request,
                             "{\"exec-oob\":\"yank\",\"id\":\"subpage-yank\",\"arguments\":{\"instances\":[{\"type\":"
                             "\"block-node\",\"node-name\":\"%.*s\"}]}}\n",
                             (int)strnlen(name, (size_t)(end - name)), name);
        SP_INVARIANT(bytes > 0);
        if ((size_t)bytes < sizeof request && send_text(request, (size_t)bytes))
            asked++;
    }
    return asked;
}

static void release_mirrors(void)
{
    if (!connect_link())
        return;
    /* A link that is closed before QEMU has answered would take the requests with it. */
    for (unsigned asked = send_yanks(); asked > 0; asked--)
        if (!await_line("\"subpage-yank\""))
            break;
}

enum outcome { RESUMED, REFUSED, UNREACHED };

/*
 * Once `cont` is sent, waits for its answer without a limit: the lease must not become free while a `cont` of ours may
 * still be waiting in QEMU. A lost connection is safe to retry, since QEMU drops the requests of a closed monitor and
 * runs those of the next one later. Meanwhile mirrors are cut in their time: the `stop` before our `cont` may wait for them.
 */
static enum outcome resume_guest(void)
{
    static const char request[] = "{\"execute\":\"cont\",\"id\":\"subpage-guard\"}\n";
    char line[1024];
    if (!connect_link())
        return UNREACHED;
    enum line got = send_text(request, sizeof request - 1) ? NO_LINE : CLOSED;
    for (; got != CLOSED; got = read_line(line, sizeof line, ANSWER_LOOK_MS)) {
        if (got == LINE && strstr(line, "\"subpage-guard\""))
            return strstr(line, "\"error\"") ? REFUSED : RESUMED;
        if (got == NO_LINE && lease_mirrors_expire(lease, lease_now_ns()))
            (void)send_yanks();
    }
    close_link();
    return UNREACHED;
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
    guard_link.fd = -1;
    /* QEMU itself died or restarted with an old file: what the predecessor began is taken up. */
    for (;;) {
        drain_link();
        /* While all is well; without mirrors the monitor is free for others. */
        if (atomic_load(&lease->mirrors_until) != 0)
            (void)connect_link();
        else
            close_link();
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
