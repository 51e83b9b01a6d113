/*
 * Processes that do one thing that is hard on a watcher, without end, and verify what their own memory holds all the while.
 *
 *   storms KIND
 *
 * Begins with a line "PID". `rest` on standard input has all of it stand still, and is answered by "resting"; any other line lets it go
 * on, answered by "going". It ends with status 0 when its input ends and nothing was wrong; else it says what, and ends with status 1.
 *
 *   threads     come and go      mappings    of every size, protected, moved, given back, filled again
 *   children    fork, vfork, exec and wait   downwards   a mapping that grows downwards, and deep stacks
 *   moved       mremap(2) with MREMAP_DONTUNMAP          collapse    large pages, made and split
 *   uring       reads of io_uring into buffers, registered ones too, with workers   sqpoll   the same, by a thread of the kernel
 *   outside     another process writes to it: process_vm_writev(2)   sharers   a process that shares its memory, and no thread of it, writes
 *   signals     a timer's signals, as fast as they come   writeonly   memory that it says it never reads
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPECT(condition)                                                                                             \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "storms: line %d: %s does not hold (errno %d)\n", __LINE__, #condition, errno);           \
            _exit(1);                                                                                                 \
        }                                                                                                             \
    } while (0)

#define PAGE ((size_t)4096)
#define READ_WRITE (PROT_READ | PROT_WRITE)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool rest, resting;

/* Between two steps of the work. */
static void pace(void)
{
    pthread_mutex_lock(&lock);
    while (rest) {
        resting = true;
        pthread_cond_broadcast(&changed);
        pthread_cond_wait(&changed, &lock);
    }
    resting = false;
    pthread_mutex_unlock(&lock);
}

/* A timer's signals come while it is on: not while all stands still. */
static bool ticking;

static void tick(bool on)
{
    struct itimerval often = {{0, on ? 150 : 0}, {0, on ? 150 : 0}};
    EXPECT(!ticking || setitimer(ITIMER_REAL, &often, NULL) == 0);
}

static uint64_t random_number(void)
{
    static uint64_t state = 1;
    uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    return z ^ (z >> 31);
}

static uint8_t *map(size_t pages, int flags)
{
    void *at = mmap(NULL, pages * PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    EXPECT(at != MAP_FAILED);
    return at;
}

static void fill(uint8_t *at, size_t pages, uint64_t value)
{
    for (size_t page = 0; page < pages; page++)
        *(uint64_t *)(at + page * PAGE + 64 * (page % 64)) = value + page;
}

static void verify(const uint8_t *at, size_t pages, uint64_t value)
{
    for (size_t page = 0; page < pages; page++)
        EXPECT(*(const uint64_t *)(at + page * PAGE + 64 * (page % 64)) == value + page);
}

/* ---- threads ---- */

enum { THREADS = 8 };
static uint64_t slots[THREADS][512];

static void *short_life(void *slot)
{
    volatile uint64_t on_stack[1024];
    uint64_t *mine = slot;
    for (int i = 0; i < 512; i++)
        on_stack[i] = ++mine[i];
    return (void *)(uintptr_t)on_stack[511];
}

static void threads(void)
{
    static uint64_t rounds;
    pthread_t made[THREADS];
    rounds++;
    for (int i = 0; i < THREADS; i++)
        EXPECT(pthread_create(&made[i], NULL, short_life, slots[i]) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        EXPECT(pthread_join(made[i], &result) == 0 && (uintptr_t)result == rounds);
    }
}

/* ---- mappings ---- */

enum { MAPPINGS = 48 };
static struct {
    uint8_t *at;
    size_t pages;
    uint64_t value;
} mappings[MAPPINGS];

static void mapping(void)
{
    static uint64_t value;
    const size_t i = random_number() % MAPPINGS, pages = 1 + random_number() % 40;
    if (!mappings[i].at) {
        mappings[i].at = map(pages, random_number() % 4 == 0 ? MAP_POPULATE : 0);
        mappings[i].pages = pages;
        fill(mappings[i].at, pages, mappings[i].value = value += 1000);
        return;
    }
    uint8_t *at = mappings[i].at;
    const size_t bytes = mappings[i].pages * PAGE;
    verify(at, mappings[i].pages, mappings[i].value);
    switch (random_number() % 7) {
    case 0:
        EXPECT(munmap(at, bytes) == 0);
        mappings[i].at = NULL;
        break;
    case 1:
        EXPECT(mprotect(at, bytes, PROT_NONE) == 0 && mprotect(at, bytes, READ_WRITE) == 0);
        break;
    case 2:
        EXPECT(madvise(at, bytes, MADV_DONTNEED) == 0 && *(uint64_t *)at == 0);
        fill(at, mappings[i].pages, mappings[i].value = value += 1000);
        break;
    case 3:
        mappings[i].at = mremap(at, bytes, pages * PAGE, MREMAP_MAYMOVE);
        EXPECT(mappings[i].at != MAP_FAILED);
        mappings[i].pages = pages;
        fill(mappings[i].at, pages, mappings[i].value = value += 1000);
        break;
    case 4:
        EXPECT(madvise(at, bytes, MADV_FREE) == 0);
        fill(at, mappings[i].pages, mappings[i].value = value += 1000);
        break;
    case 5: /* a guard page amidst */
        if (mappings[i].pages < 3)
            break;
        EXPECT(mprotect(at + PAGE, PAGE, PROT_NONE) == 0);
        fill(at, 1, mappings[i].value);
        EXPECT(mprotect(at + PAGE, PAGE, READ_WRITE) == 0);
        break;
    default:
        fill(at, mappings[i].pages, mappings[i].value = value += 1000);
    }
}

/* ---- children ---- */

extern char **environ;

static void children(void)
{
    static uint8_t *shared;
    static uint64_t value;
    if (!shared)
        shared = map(64, 0);
    fill(shared, 64, value += 100);
    char *const arguments[] = {"true", NULL};
    pid_t made[3];
    made[0] = fork();
    if (made[0] == 0) {
        verify(shared, 64, value);
        fill(shared, 64, 7);
        _exit(0);
    }
    made[1] = vfork();
    if (made[1] == 0) {
        execve("/bin/true", arguments, environ);
        _exit(1);
    }
    EXPECT(posix_spawn(&made[2], "/bin/true", NULL, NULL, arguments, environ) == 0);
    fill(shared, 32, value);
    for (int i = 0; i < 3; i++) {
        int status;
        EXPECT(made[i] > 0 && waitpid(made[i], &status, 0) == made[i] && status == 0);
    }
    verify(shared, 64, value);
}

/* ---- downwards ---- */

static uint64_t deep(int depth)
{
    volatile uint64_t on_stack[256];
    for (int i = 0; i < 256; i++)
        on_stack[i] = (uint64_t)depth;
    uint64_t below = depth > 0 ? deep(depth - 1) : 0;
    for (int i = 0; i < 256; i++)
        EXPECT(on_stack[i] == (uint64_t)depth);
    return below + on_stack[0];
}

static void downwards(void)
{
    enum { ROOM = 1024, GROWN = 200 };
    uint8_t *room = mmap(NULL, ROOM * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT(room != MAP_FAILED && munmap(room, ROOM * PAGE) == 0);
    uint8_t *top = mmap(room + (ROOM - 1) * PAGE, PAGE, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    EXPECT(top != MAP_FAILED);
    for (int i = 0; i < GROWN; i++)
        *(volatile uint64_t *)(top - (size_t)i * PAGE) = (uint64_t)i;
    for (int i = 0; i < GROWN; i++)
        EXPECT(*(volatile uint64_t *)(top - (size_t)i * PAGE) == (uint64_t)i);
    EXPECT(munmap(room, ROOM * PAGE) == 0);
    EXPECT(deep(300) == 300 * 301 / 2);
}

/* ---- moved ---- */

static void moved(void)
{
    enum { PAGES = 40 };
    static uint8_t *from;
    static uint64_t value;
    if (!from)
        from = map(PAGES, 0);
    fill(from, PAGES, value += 100);
    uint8_t *to = mremap(from, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    EXPECT(to != MAP_FAILED && to != from);
    verify(to, PAGES, value);
    for (int page = 0; page < PAGES; page++)
        EXPECT(*(uint64_t *)(from + (size_t)page * PAGE + 64 * (page % 64)) == 0);
    fill(to, PAGES / 2, value);
    pace(); /* both are there at the end of an epoch */
    verify(to, PAGES, value);
    EXPECT(munmap(to, PAGES * PAGE) == 0);
}

/* ---- collapse ---- */

static void collapse(void)
{
    enum { PAGES = 1024 };
    static uint8_t *at;
    static uint64_t value;
    if (!at) {
        uintptr_t room = (uintptr_t)map(PAGES + 512, 0);
        at = (uint8_t *)((room + 512 * PAGE - 1) / (512 * PAGE) * (512 * PAGE));
        madvise(at, PAGES * PAGE, MADV_HUGEPAGE);
    }
    fill(at, PAGES, value += 10000);
    madvise(at, PAGES * PAGE, 25 /* MADV_COLLAPSE */);
    verify(at, PAGES, value);
    EXPECT(madvise(at + 100 * PAGE, 20 * PAGE, MADV_DONTNEED) == 0);
    EXPECT(mprotect(at + 700 * PAGE, PAGE, PROT_READ) == 0 && mprotect(at + 700 * PAGE, PAGE, READ_WRITE) == 0);
    verify(at, 100, value);
    fill(at + 100 * PAGE, 20, 5);
    verify(at + 320 * PAGE, 500, value + 320);
}

/* ---- uring, sqpoll: without a library ---- */

enum { BUFFER_PAGES = 16, ENTRIES = 8 };
static struct {
    int fd, data[2];
    uint8_t *registered, *plain;
    struct io_uring_sqe *entries;
    _Atomic unsigned *head, *tail, *mask, *flags, *done_head, *done_tail, *done_mask;
    unsigned *array;
    struct io_uring_cqe *done;
} ring;

static void open_ring(unsigned flags)
{
    struct io_uring_params params = {.flags = flags, .sq_thread_idle = 2000};
    ring.fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &params);
    EXPECT(ring.fd >= 0);
    uint8_t *queue = mmap(NULL, params.sq_off.array + params.sq_entries * 4, READ_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQ_RING);
    uint8_t *done = mmap(NULL, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), READ_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_CQ_RING);
    ring.entries = mmap(NULL, params.sq_entries * sizeof(struct io_uring_sqe), READ_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQES);
    EXPECT(queue != MAP_FAILED && done != MAP_FAILED && ring.entries != MAP_FAILED);
    ring.head = (void *)(queue + params.sq_off.head);
    ring.tail = (void *)(queue + params.sq_off.tail);
    ring.mask = (void *)(queue + params.sq_off.ring_mask);
    ring.flags = (void *)(queue + params.sq_off.flags);
    ring.array = (void *)(queue + params.sq_off.array);
    ring.done_head = (void *)(done + params.cq_off.head);
    ring.done_tail = (void *)(done + params.cq_off.tail);
    ring.done_mask = (void *)(done + params.cq_off.ring_mask);
    ring.done = (void *)(done + params.cq_off.cqes);
    ring.registered = map(BUFFER_PAGES, 0);
    ring.plain = map(BUFFER_PAGES, 0);
    struct iovec buffer = {ring.registered, BUFFER_PAGES * PAGE};
    EXPECT(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &buffer, 1) == 0);
    EXPECT(pipe(ring.data) == 0);
}

static int read_ring(bool polled, uint8_t opcode, uint8_t *into, size_t bytes, unsigned flags)
{
    unsigned tail = *ring.tail, index = tail & *ring.mask;
    ring.entries[index] = (struct io_uring_sqe){.opcode = opcode, .flags = (uint8_t)flags, .fd = ring.data[0], .addr = (uintptr_t)into, .len = (unsigned)bytes};
    ring.array[index] = index;
    atomic_store(ring.tail, tail + 1);
    if (!polled)
        EXPECT(syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) >= 0);
    else if (*ring.flags & IORING_SQ_NEED_WAKEUP)
        syscall(SYS_io_uring_enter, ring.fd, 1, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0);
    while (*ring.done_head == *ring.done_tail)
        if (!polled)
            syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    int result = ring.done[*ring.done_head & *ring.done_mask].res;
    atomic_store(ring.done_head, *ring.done_head + 1);
    return result;
}

static void read_by_ring(bool polled)
{
    static uint64_t value;
    static uint8_t data[PAGE];
    if (!ring.registered)
        open_ring(polled ? IORING_SETUP_SQPOLL : 0);
    const size_t page = random_number() % BUFFER_PAGES;
    memset(data, (int)(++value), sizeof data);
    EXPECT(write(ring.data[1], data, PAGE) == (ssize_t)PAGE);
    const bool fixed = value % 2 == 0;
    uint8_t *into = (fixed ? ring.registered : ring.plain) + page * PAGE;
    EXPECT(read_ring(polled, fixed ? IORING_OP_READ_FIXED : IORING_OP_READ, into, PAGE, value % 3 == 0 ? IOSQE_ASYNC : 0) == (int)PAGE);
    EXPECT(memcmp(into, data, PAGE) == 0);
}

static void uring(void)
{
    read_by_ring(false);
}

static void sqpoll(void)
{
    read_by_ring(true);
}

/* ---- outside, sharers ---- */

static atomic_uint_fast64_t *asked, *answered; /* shared with the other process */
static uint8_t *written_to;

static void write_outside(pid_t pid)
{
    static uint8_t ours[32 * PAGE];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint64_t turn = 1;; turn++) {
        while (*asked < turn)
            sched_yield();
        fill(ours, 32, turn * 100);
        struct iovec from = {ours, sizeof ours}, to = {written_to, sizeof ours};
        if (process_vm_writev(pid, &from, 1, &to, 1, 0) != (ssize_t)sizeof ours)
            _exit(0); /* the target has ended */
        *answered = turn;
    }
}

static int write_sharing(void *unused)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint64_t turn = 1;; turn++) {
        while (*asked < turn)
            sched_yield();
        fill(written_to, 32, turn * 100);
        *answered = turn;
    }
    return unused == NULL;
}

static void by_another(bool sharing)
{
    static uint8_t *stack;
    if (!written_to) {
        written_to = map(32, 0);
        fill(written_to, 32, 0);
        asked = mmap(NULL, PAGE, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        answered = asked + 8;
        pid_t self = getpid();
        stack = map(16, 0);
        pid_t other = sharing ? clone(write_sharing, stack + 16 * PAGE, CLONE_VM | SIGCHLD, NULL) : fork();
        EXPECT(other >= 0);
        if (other == 0)
            write_outside(self);
    }
    uint64_t turn = *answered + 1;
    *asked = turn;
    while (*answered < turn)
        sched_yield();
    verify(written_to, 32, turn * 100);
}

static void outside(void)
{
    by_another(false);
}

static void sharers(void)
{
    by_another(true);
}

/* ---- signals ---- */

static volatile uint64_t handled;

static void on_alarm(int signal)
{
    (void)signal;
    handled++;
    slots[0][handled % 512] = handled;
}

static void signals(void)
{
    if (!ticking) {
        struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
        EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
        ticking = true;
        tick(true);
    }
    uint64_t sum = 0;
    for (volatile uint64_t i = 0; i < 100000; i++)
        sum += i;
    EXPECT(sum == UINT64_C(100000) * 99999 / 2);
}

/* ---- writeonly ---- */

static void writeonly(void)
{
    static uint8_t *at;
    static uint64_t value;
    if (!at) {
        at = mmap(NULL, 16 * PAGE, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(at != MAP_FAILED);
    }
    fill(at, 16, ++value);
}

static const struct {
    const char *name;
    void (*step)(void);
} kinds[] = {
    {"threads", threads}, {"mappings", mapping}, {"children", children}, {"downwards", downwards}, {"moved", moved},
    {"collapse", collapse}, {"uring", uring}, {"sqpoll", sqpoll}, {"outside", outside}, {"sharers", sharers},
    {"signals", signals}, {"writeonly", writeonly},
};

static void *work(void *step)
{
    for (;;) {
        ((void (*)(void))step)();
        pace();
    }
    return NULL;
}

/* With the lock held. */
static void await_rest(void)
{
    resting = false;
    pthread_cond_broadcast(&changed);
    while (!resting)
        pthread_cond_wait(&changed, &lock);
}

int main(int argc, char **argv)
{
    EXPECT(argc == 2);
    void (*step)(void) = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(argv[1], kinds[i].name) == 0)
            step = kinds[i].step;
    EXPECT(step);
    pthread_t thread;
    char line[16];
    EXPECT(pthread_create(&thread, NULL, work, (void *)step) == 0);
    printf("%d\n", getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        pthread_mutex_lock(&lock);
        rest = strcmp(line, "rest\n") == 0;
        if (rest)
            await_rest();
        tick(!rest);
        /* A signal that the other thread has been given is handled before it answers again. */
        if (rest)
            await_rest();
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
        puts(rest ? "resting" : "going");
        fflush(stdout);
    }
    _exit(0);
}
