/*
 * A process that waits in the kernel in every way that a stop may cut short, and counts what was cut short: no handler runs here,
 * so no call may return EINTR (signal(7), "Interruption of system calls and library functions by stop signals", lists those that
 * the kernel does not make again by itself), and none may last much longer than its time limit.
 *
 *   calls KINDS  all, or quiet: without signals that nobody takes notice of; until its input ends, then prints a line for each kind of call: NAME ROUNDS EINTR
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPECT(condition)                                                                                             \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "calls: line %d: %s does not hold (errno %d)\n", __LINE__, #condition, errno);            \
            _exit(1);                                                                                                 \
        }                                                                                                             \
    } while (0)

enum { LIMIT_MS = 15 };

static atomic_bool over;
static const struct timespec limit = {.tv_nsec = LIMIT_MS * 1000000};

struct kind {
    const char *name;
    void *(*run)(void *);
    unsigned long rounds, cut;
};

/* What a call returned: nothing else than its time limit may end it. */
static void count(struct kind *kind, long result, int in_time)
{
    kind->rounds++;
    if (result < 0 && errno == EINTR)
        kind->cut++;
    else
        EXPECT(result >= 0 || errno == in_time || errno == EIDRM /* at the end */);
}

static int epoll_of(int fd)
{
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    EXPECT(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    return epoll;
}

static void *run_epoll_wait(void *kind)
{
    struct epoll_event event;
    for (int epoll = epoll_of(eventfd(0, 0)); !over;)
        count(kind, epoll_wait(epoll, &event, 1, LIMIT_MS), 0);
    return kind;
}

static void *run_epoll_pwait(void *kind)
{
    struct epoll_event event;
    sigset_t all;
    sigfillset(&all);
    for (int epoll = epoll_of(eventfd(0, 0)); !over;)
        count(kind, epoll_pwait(epoll, &event, 1, LIMIT_MS, &all), 0);
    return kind;
}

static void *run_epoll_pwait2(void *kind)
{
    struct epoll_event event;
    for (int epoll = epoll_of(eventfd(0, 0)); !over;)
        count(kind, syscall(441 /* epoll_pwait2 */, epoll, &event, 1, &limit, NULL, 8), 0);
    return kind;
}

static void *ring(void *fd)
{
    for (uint64_t one = 1; !over; usleep(700))
        EXPECT(write((int)(intptr_t)fd, &one, 8) == 8);
    return fd;
}

/* Without a limit, and often: a thread is often caught as it goes to sleep. */
static void *run_epoll_event(void *kind)
{
    pthread_t partner;
    int fd = eventfd(0, 0);
    EXPECT(pthread_create(&partner, NULL, ring, (void *)(intptr_t)fd) == 0);
    for (int epoll = epoll_of(fd); !over;) {
        struct epoll_event event;
        uint64_t got;
        int result = epoll_wait(epoll, &event, 1, -1);
        count(kind, result, 0);
        if (result == 1)
            EXPECT(read(fd, &got, 8) == 8);
    }
    return kind;
}

static void *run_sigtimedwait(void *kind)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    while (!over)
        count(kind, sigtimedwait(&set, NULL, &limit), EAGAIN);
    return kind;
}

static pthread_t waits_for_signal;

static void *send_signal(void *unused)
{
    for (; !over; usleep(700))
        pthread_kill(waits_for_signal, SIGUSR2);
    return unused;
}

static void *run_sigwaitinfo(void *kind)
{
    pthread_t partner;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    waits_for_signal = pthread_self();
    EXPECT(pthread_create(&partner, NULL, send_signal, NULL) == 0);
    while (!over)
        count(kind, sigwaitinfo(&set, NULL), 0);
    return kind;
}

static int semaphores[2];

static int semaphore(int number)
{
    int id = semget(IPC_PRIVATE, 1, 0600);
    EXPECT(id >= 0);
    return semaphores[number] = id;
}

static void *run_semtimedop(void *kind)
{
    int id = semaphore(0);
    struct sembuf take = {.sem_op = -1};
    while (!over)
        count(kind, semtimedop(id, &take, 1, &limit), EAGAIN);
    return kind;
}

static void *give(void *id)
{
    struct sembuf one = {.sem_op = 1};
    for (; !over && semop((int)(intptr_t)id, &one, 1) == 0; usleep(700))
        ;
    return id;
}

static void *run_semop(void *kind)
{
    pthread_t partner;
    int id = semaphore(1);
    struct sembuf take = {.sem_op = -1};
    EXPECT(pthread_create(&partner, NULL, give, (void *)(intptr_t)id) == 0);
    while (!over)
        count(kind, semop(id, &take, 1), 0);
    return kind;
}

static void *run_io_getevents(void *kind)
{
    aio_context_t context = 0;
    struct io_event event;
    EXPECT(syscall(SYS_io_setup, 1, &context) == 0);
    while (!over) {
        struct timespec left = limit;
        count(kind, syscall(SYS_io_getevents, context, 1, 1, &event, &left), 0);
    }
    return kind;
}

static void pair(int ends[2], int option)
{
    const struct timeval time = {.tv_usec = LIMIT_MS * 1000};
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    EXPECT(setsockopt(ends[0], SOL_SOCKET, option, &time, sizeof time) == 0);
}

static void *run_recv(void *kind)
{
    int ends[2];
    char byte;
    for (pair(ends, SO_RCVTIMEO); !over;)
        count(kind, recv(ends[0], &byte, 1, 0), EAGAIN);
    return kind;
}

static void *run_recvmsg(void *kind)
{
    int ends[2];
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    for (pair(ends, SO_RCVTIMEO); !over;)
        count(kind, recvmsg(ends[0], &message, 0), EAGAIN);
    return kind;
}

static void *run_read(void *kind)
{
    int ends[2];
    char byte;
    for (pair(ends, SO_RCVTIMEO); !over;)
        count(kind, read(ends[0], &byte, 1), EAGAIN);
    return kind;
}

static void *run_send(void *kind)
{
    static char bytes[4096];
    int ends[2];
    pair(ends, SO_SNDTIMEO);
    while (send(ends[0], bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
    while (!over)
        count(kind, send(ends[0], bytes, sizeof bytes, 0), EAGAIN);
    return kind;
}

static int listener(struct sockaddr_un *address, int backlog, int name)
{
    const struct timeval time = {.tv_usec = LIMIT_MS * 1000};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "subpage-calls-%d-%d", getpid(), name);
    EXPECT(bind(fd, (struct sockaddr *)address, sizeof *address) == 0 && listen(fd, backlog) == 0);
    EXPECT(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0);
    return fd;
}

static void *run_accept(void *kind)
{
    struct sockaddr_un address;
    for (int fd = listener(&address, 1, 1); !over;)
        count(kind, accept(fd, NULL, NULL), EAGAIN);
    return kind;
}

static void *run_connect(void *kind)
{
    struct sockaddr_un address;
    const struct timeval time = {.tv_usec = LIMIT_MS * 1000};
    int fd;
    listener(&address, 0, 2);
    do /* until nobody else fits into the queue */
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    while (connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    EXPECT(errno == EAGAIN);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) == 0);
    while (!over)
        count(kind, connect(fd, (struct sockaddr *)&address, sizeof address), EAGAIN);
    return kind;
}

/* Of these signals nobody takes notice: they wake nobody. */
static pthread_t main_thread;

static void *run_ignored(void *kind)
{
    for (; !over; usleep(3000)) {
        count(kind, pthread_kill(main_thread, SIGWINCH), 0);
        pthread_kill(main_thread, SIGHUP);
    }
    return kind;
}

static struct kind kinds[] = {
    {.name = "epoll_wait", .run = run_epoll_wait},     {.name = "epoll_pwait", .run = run_epoll_pwait},
    {.name = "epoll_pwait2", .run = run_epoll_pwait2}, {.name = "epoll_event", .run = run_epoll_event},
    {.name = "sigtimedwait", .run = run_sigtimedwait}, {.name = "sigwaitinfo", .run = run_sigwaitinfo},
    {.name = "semtimedop", .run = run_semtimedop},     {.name = "semop", .run = run_semop},
    {.name = "io_getevents", .run = run_io_getevents}, {.name = "recv", .run = run_recv},
    {.name = "recvmsg", .run = run_recvmsg},           {.name = "read", .run = run_read},
    {.name = "send", .run = run_send},                 {.name = "accept", .run = run_accept},
    {.name = "connect", .run = run_connect},           {.name = "ignored", .run = run_ignored},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static struct kind main_kind = {.name = "main"};

int main(int argc, char **argv)
{
    EXPECT(argc == 2);
    const bool quiet = strcmp(argv[1], "quiet") == 0;
    sigset_t all, none;
    pthread_t threads[KINDS];
    main_thread = pthread_self();
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&none);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (int i = 0; i < KINDS; i++)
        if (!quiet || kinds[i].run != run_ignored)
            EXPECT(pthread_create(&threads[i], NULL, kinds[i].run, &kinds[i]) == 0);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    puts("begun");
    fflush(stdout);
    int epoll = epoll_of(eventfd(0, 0));
    struct pollfd input = {.fd = 0, .events = POLLIN};
    do {
        struct epoll_event event;
        count(&main_kind, epoll_wait(epoll, &event, 1, LIMIT_MS), 0);
    } while (poll(&input, 1, 0) <= 0);
    over = true;
    for (int i = 0; i < 2; i++)
        semctl(semaphores[i], 0, IPC_RMID);
    for (int i = -1; i < KINDS; i++) {
        const struct kind *kind = i < 0 ? &main_kind : &kinds[i];
        printf("%s %lu %lu\n", kind->name, kind->rounds, kind->cut);
    }
    fflush(stdout);
    _exit(0);
}
