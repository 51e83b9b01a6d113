/*
 * holder TRACKER PAGES pid PID | holder TRACKER PAGES run FILES,BLOCKED,IGNORED COMMAND...
 * TRACKER: auto, userfault, compare. PAGES: how many pages of memory can be recorded at most. FILES,BLOCKED,IGNORED: the soft limit
 * of open files and the signal masks that the command begins with, as in /proc/PID/status; `-` when not known.
 * On descriptor 3 subpage asks with one byte: h hold, look and go on; s hold, look and stand; g go on (no answer); p hold, find what was
 * written, go on, and only then copy it.
 * Closing it ends the recording.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "holder.h"

enum { HOLD_MS = 100, START_MS = 2000, ATTACH_TRIES = 20 };

static struct target target;
static struct watch watch = {.pagemap = -1, .mem = -1, .uffd = -1};
static struct message reply;
static const char *tracker;
static bool runs; /* a command of ours */
/* When the former program was replaced, since the last hold; 0 when it was not. */
static uint64_t executed_ns;
/* A command of ours that has not begun: when it cannot be recorded it does not begin. */
static bool not_begun;
/* Subpage has not yet looked at what is there at the start: a command stands until it has, so that all of it is recorded. */
static bool first_look = true;
static uint64_t gone_on_ns;

static void on_child(int signal)
{
    (void)signal;
    target_take_while_seizing(); /* else it is only to wake ppoll */
}

/* Tracking ends with the last copy of its descriptor; then the target is let go. */
static void let_go(void)
{
    if (watch.uffd >= 0)
        close(watch.uffd);
    watch.uffd = -1;
    /* What takes time at the end of a program is done before: threads that stop meanwhile would wait for it. */
    munmap(watch.mirror, watch.space.page_limit * PAGE_BYTES);
    target_detach(&target);
}

static int failed(const char *step, int error)
{
    message_begin(&reply, MESSAGE_FAILED);
    message_u64(&reply, (uint64_t)error);
    message_text(&reply, step);
    message_send(&reply);
    if (not_begun)
        kill(target.pid, SIGKILL);
    let_go();
    return 1;
}

/* As whoever started subpage wants it: the program of subpage itself has changed these. */
static void become_as_started(const char *as)
{
    char files[24] = "";
    unsigned long long blocked = 0, ignored = 0;
    struct rlimit limit;
    if (sscanf(as, "%23[^,],%llx,%llx", files, &blocked, &ignored) == 3 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        rlim_t soft = *files == 'u' ? RLIM_INFINITY : (rlim_t)strtoull(files, NULL, 10);
        limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    sigset_t mask;
    sigemptyset(&mask);
    for (int number = 1; number < NSIG; number++) {
        signal(number, ignored >> (number - 1) & 1 ? SIG_IGN : SIG_DFL);
        if (blocked >> (number - 1) & 1)
            sigaddset(&mask, number);
    }
    sigprocmask(SIG_SETMASK, &mask, NULL);
}

/* The command, stopped before it becomes itself: it waits until it is seized. */
static int start(const char *as, char **command, int *exec_error)
{
    int go[2], result[2];
    if (pipe2(go, O_CLOEXEC) < 0 || pipe2(result, O_CLOEXEC) < 0)
        return errno;
    pid_t pid = fork();
    if (pid < 0)
        return errno;
    if (pid == 0) {
        char byte;
        close(go[1]);
        become_as_started(as);
        close(CONTROL_FD);
        if (read(go[0], &byte, 1) == 1)
            execvp(command[0], command);
        int error = errno;
        if (write(result[1], &error, sizeof error) < 0)
            _exit(126);
        _exit(127);
    }
    close(go[0]);
    close(result[1]);
    not_begun = true;
    int error = target_seize(&target, pid);
    if (error || write(go[1], "g", 1) != 1)
        return error ? error : errno;
    close(go[1]);
    if (read(result[0], exec_error, sizeof *exec_error) != sizeof *exec_error)
        *exec_error = 0;
    close(result[0]);
    return 0;
}

/* Opens a file of the target's in /proc anew: each stands for the memory of one program. */
static bool reopen(int *fd, const char *name)
{
    char path[64];
    if (*fd >= 0)
        close(*fd);
    snprintf(path, sizeof path, "/proc/%d/%s", watch.pid, name);
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd >= 0)
        return true;
    watch.failed = name;
    watch.error = errno;
    return false;
}

/*
 * Makes the memory of the program that has just begun, or that is held, ready. False when it cannot be read. When only its
 * pages cannot be tracked, `watch.uffd` is -1 and `watch.failed` says why.
 */
static bool prepare(void)
{
    watch.failed = NULL;
    watch.error = 0;
    if (watch.uffd >= 0)
        close(watch.uffd);
    watch.uffd = -1;
    if (!reopen(&watch.mem, "mem") || !reopen(&watch.pagemap, "pagemap"))
        return false;
    if (strcmp(tracker, "compare") != 0)
        watch_prepare(&watch, target_calling_thread(&target));
    return true;
}

/*
 * Another program has begun, and stands before its first instruction. False when its memory cannot be read. When only tracking
 * is refused (a seccomp filter, a program of 32 bits), the recording goes on without.
 */
static bool take_up(void)
{
    if (!target.executed || target_stopped_thread(&target) == 0)
        return true;
    target.executed = false;
    executed_ns = now_ns();
    space_forget(&watch.space);
    watch.pid = target.pid;
    track_forget(&watch);
    return prepare() || target_ends(&target); /* the next hold tells of its end */
}

/* The thread whose /proc/PID shows the memory may have ended while others go on. */
static int find_pages(void)
{
    int error = find_written(&watch);
    if (error != ESRCH)
        return error;
    pid_t living = target_living_thread(&target, watch.pid);
    if (living == 0)
        return error;
    watch.pid = living;
    return find_written(&watch);
}

/* Of all threads of the target. */
static uint64_t cpu_ns(void)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(target.pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
        return 0;
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static void go_on(void)
{
    target_release(&target);
    gone_on_ns = now_ns();
}

static void answer_held(uint64_t asked_ns, uint64_t held_ns, uint64_t resumed_ns)
{
    struct space *space = &watch.space;
    message_begin(&reply, MESSAGE_HELD);
    message_u64(&reply, asked_ns);
    message_u64(&reply, held_ns);
    message_u64(&reply, resumed_ns);
    message_u64(&reply, executed_ns);
    message_u64(&reply, gone_on_ns);
    message_u64(&reply, cpu_ns());
    message_u64(&reply, watch.uffd >= 0);
    message_u64(&reply, (uint64_t)watch.error);
    message_text(&reply, watch.failed ? watch.failed : "");
    message_u64(&reply, space->news_count);
    for (size_t i = 0; i < space->news_count; i++) {
        message_u64(&reply, space->news[i].first_page);
        message_u64(&reply, (space->news[i].end - space->news[i].start) / PAGE_BYTES);
        message_u64(&reply, space->news[i].start);
        message_text(&reply, space->news[i].name);
    }
    message_u64(&reply, watch.run_count);
    message_bytes(&reply, watch.runs, watch.run_count * sizeof *watch.runs);
    track_tell(&watch, &reply);
    space->news_count = 0;
    executed_ns = 0;
}

static void answer_ended(void)
{
    message_begin(&reply, MESSAGE_ENDED);
    message_u64(&reply, target.reaped);
    message_u64(&reply, (uint64_t)target.exit_status);
}

/*
 * Of the threads that were seized none is left, but the process lives: one that was made before its maker was seized, and was not seen yet,
 * has executed another program. It is taken up as if it had been seen. False: the process has ended.
 */
static bool found_again(void)
{
    if (target.reaped || target_seize_again(&target) != 0)
        return false;
    target_hold(&target, HOLD_MS);
    target.executed = true;
    target.holding = false;
    return !target.ended;
}

/* One epoch's end. Returns what ended the recording, or NULL. */
static const char *hold(int *error, char request)
{
    uint64_t asked = now_ns();
    const char *step = NULL;
    *error = 0;
    bool held = !target.executed && target_hold(&target, HOLD_MS) && !target.executed;
    if (held) {
        uint64_t held_ns = now_ns();
        *error = find_pages();
        const bool stand = request == 's';
        /* Much is copied best while the target runs: what it writes meanwhile is found in the next hold, and copied again. */
        const bool early = request == 'p' && !*error;
        const uint64_t former = gone_on_ns; /* when it ran before this hold is in the answer */
        if (early)
            go_on();
        uint64_t resumed = now_ns();
        if (!*error)
            *error = copy_written(&watch);
        if (*error && *error != ESRCH)
            step = *error == ENOSPC ? "it has more memory than can be recorded here" : "its written pages";
        if (!early) {
            if (!stand && (!first_look || !runs))
                go_on();
            resumed = now_ns();
        }
        uint64_t latter = gone_on_ns;
        gone_on_ns = former;
        if (!*error)
            answer_held(asked, held_ns, resumed);
        gone_on_ns = latter;
        first_look = false;
        held = !*error;
    } else
        target_release(&target);
    if (step)
        return step;
    target_events(&target);
    if (!held && target.ended && !found_again())
        answer_ended();
    else if (!held)
        message_begin(&reply, MESSAGE_BUSY);
    return NULL;
}

/* Until subpage has enough. */
static int serve(void)
{
    sigset_t none;
    sigemptyset(&none);
    for (;;) {
        struct pollfd control = {.fd = CONTROL_FD, .events = POLLIN};
        char request;
        int error;
        target_events(&target);
        if (!take_up())
            return failed(watch.failed, watch.error);
        if (!target.holding)
            target_release(&target);
        const uint64_t ns = target_expire(&target);
        const struct timespec time = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
        int ready = ppoll(&control, 1, ns == UINT64_MAX ? NULL : &time, &none);
        if (ready == 0)
            continue;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0 || read(CONTROL_FD, &request, 1) != 1)
            break;
        if (request == 'g') {
            go_on();
            continue;
        }
        const char *step = hold(&error, request);
        if (step)
            return failed(step, error);
        if (!message_send(&reply))
            break;
    }
    let_go();
    return 0;
}

/* Memory that both sides map; it takes room only where a page of the target was copied to. */
static int open_mirror(uint64_t pages, int *mirror)
{
    if (pages == 0 || pages > UINT32_MAX) /* a page has a number of 32 bits (harvest.c) */
        return EINVAL;
    *mirror = memfd_create("subpage-mirror", MFD_CLOEXEC);
    if (*mirror < 0 || ftruncate(*mirror, (off_t)(pages * PAGE_BYTES)) < 0)
        return errno;
    void *at = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *mirror, 0);
    if (at == MAP_FAILED)
        return errno;
    watch.mirror = at;
    watch.space.page_limit = pages;
    known_init(&watch.known, pages);
    return 0;
}

/* The command has become itself and stands before its first instruction. */
static bool await_exec(void)
{
    uint64_t deadline = now_ns() + START_MS * UINT64_C(1000000);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    const struct timespec tick = {.tv_nsec = 10000000};
    while (!target.executed || target_stopped_thread(&target) == 0) {
        target_events(&target);
        if (target.ended || now_ns() > deadline)
            return false;
        if (!target.executed || target_stopped_thread(&target) == 0)
            sigtimedwait(&child, NULL, &tick);
    }
    return true;
}

/* Its memory or its threads were gone when they were looked for. */
static bool vanished(void)
{
    return watch.uffd < 0 && (watch.error == ESRCH || watch.error == ENOENT);
}

/*
 * Holds a process that runs, and makes its memory ready. A thread may execute another program just then: of the threads that were seized
 * none is left, or one that begins anew, and whoever asks for the number of the first one may be told of the former one (EPERM). Returns
 * NULL, or what failed, with its errno.
 */
static const char *attach(int *error)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    *error = target_seize(&target, target.pid);
    bool seized = !*error;
    for (int tries = 0;; tries++) {
        const bool last = tries == ATTACH_TRIES;
        if (*error && ((*error != ESRCH && *error != EPERM) || last))
            return seized && *error == ESRCH ? "ended" : "ptrace";
        seized = seized || !*error;
        target.holding = true;
        if (!*error) {
            watch.pid = target_living_thread(&target, 0);
            bool held = target_hold(&target, START_MS);
            if (!held && (!target.ended || last))
                return target.ended ? "ended" : "hold";
            target.executed = false;
            bool prepared = held && prepare();
            if (held && (last || !vanished())) {
                if (prepared && (watch.uffd >= 0 || strcmp(tracker, "userfault") != 0))
                    return NULL;
                *error = watch.error;
                return target_ends(&target) ? "ended" : watch.failed;
            }
        }
        nanosleep(&pause, NULL);
        *error = target_seize_again(&target);
    }
}

int main(int argc, char **argv)
{
    if (argc < 5 || (strcmp(argv[3], "run") == 0 && argc < 6)) {
        fputs("this program is started by `subpage record`\n", stderr);
        return 2;
    }
    runs = strcmp(argv[3], "run") == 0;
    int mirror, exec_error = 0, error;
    tracker = argv[1];
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    struct sigaction wake = {.sa_handler = on_child};
    sigaction(SIGCHLD, &wake, NULL);
    /* What is sent to a process group, by a terminal, timeout(1) or a service manager, is for subpage, which then closes the socket. */
    for (const int *number = (const int[]){SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP, SIGPIPE, 0}; *number; number++)
        signal(*number, SIG_IGN);
    if ((error = open_mirror(strtoull(argv[2], NULL, 10), &mirror)))
        return failed("memory for a copy", error);
    const uint64_t asked = now_ns();
    if (runs) {
        if ((error = start(argv[4], argv + 5, &exec_error)))
            return failed("ptrace", error);
        if (exec_error)
            return failed("exec", exec_error);
        watch.pid = target.pid;
        target.holding = true;
        if (!await_exec())
            return failed(target.ended ? "ended" : "hold", 0);
        target.executed = false;
        if (!prepare() || (watch.uffd < 0 && strcmp(tracker, "userfault") == 0))
            return target_ends(&target) ? failed("ended", 0) : failed(watch.failed, watch.error);
    } else {
        target.pid = (pid_t)atoi(argv[4]);
        const char *step = attach(&error);
        if (step)
            return failed(step, error);
    }
    message_begin(&reply, MESSAGE_READY);
    message_u64(&reply, (uint64_t)target.pid);
    message_u64(&reply, (uint64_t)mirror);
    message_u64(&reply, watch.uffd >= 0);
    message_u64(&reply, (uint64_t)watch.error);
    message_text(&reply, watch.failed ? watch.failed : "");
    message_u64(&reply, runs ? 0 : now_ns() - asked);
    not_begun = false;
    if (!runs)
        target.holding = false;
    if (!message_send(&reply)) {
        let_go();
        return 1;
    }
    return serve();
}
