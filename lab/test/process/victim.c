/*
 * A process to record. It says what it expects of the kernel and of its memory, and ends with status 1 when something is not
 * so: whoever watches it must not be felt.
 *
 *   work MS      threads that write, map, move and unmap memory, wait for signals, sleep, poll; verified all the time;
 *                with 0 until its input ends
 *   words PAGES  changes a word in each of so many pages, and writes as many with what they hold, without end
 *   steps PAGES  prints its pid and the address of a buffer; each line read is a command:
 *                  write N  changes a word in each of N pages, same N  writes what is there, grow N  maps N pages more and
 *                  fills them, wait MS  makes a child by vfork that sleeps while this process waits in the kernel,
 *                  exec  becomes `steps` anew
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPECT(condition)                                                                                             \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "victim: line %d: %s does not hold (errno %d)\n", __LINE__, #condition, errno);           \
            _exit(1);                                                                                                 \
        }                                                                                                             \
    } while (0)

static atomic_bool over;
static atomic_ullong rounds[5];

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static void *writer(void *unused)
{
    enum { WORDS = 400 * 512 };
    static uint64_t memory[WORDS];
    uint64_t state = 88172645463325252u, sum = 0;
    while (!over) {
        for (int i = 0; i < 2000; i++) {
            uint64_t value = next(&state), at = value % WORDS;
            sum += value - memory[at];
            memory[at] = value;
        }
        rounds[0]++;
        if (rounds[0] % 500 == 0) {
            uint64_t all = 0;
            for (int i = 0; i < WORDS; i++)
                all += memory[i];
            EXPECT(all == sum);
        }
    }
    return unused;
}

static void *mapper(void *unused)
{
    uint64_t state = 1234567;
    while (!over) {
        size_t pages = 1 + next(&state) % 40, bytes = pages * 4096;
        uint64_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(at != MAP_FAILED);
        for (size_t i = 0; i < pages; i++)
            at[512 * i] = state + i;
        at = mremap(at, bytes, 3 * bytes, MREMAP_MAYMOVE);
        EXPECT(at != MAP_FAILED);
        for (size_t i = 0; i < pages; i++)
            EXPECT(at[512 * i] == state + i);
        EXPECT(at[512 * pages] == 0);
        EXPECT(munmap(at, 3 * bytes) == 0);
        rounds[1]++;
        usleep(200);
    }
    return unused;
}

/* No handler runs in these threads, so no call of theirs may be cut short. */
static void *sleeper(void *unused)
{
    int ends[2];
    EXPECT(pipe(ends) == 0);
    while (!over) {
        double began = now_ms();
        struct timespec nap = {.tv_nsec = 2000000};
        EXPECT(nanosleep(&nap, NULL) == 0);
        EXPECT(now_ms() - began >= 2);
        struct pollfd wait = {.fd = ends[0], .events = POLLIN};
        began = now_ms();
        EXPECT(poll(&wait, 1, 3) == 0);
        EXPECT(now_ms() - began >= 2.9);
        EXPECT(write(ends[1], "x", 1) == 1);
        char byte;
        EXPECT(read(ends[0], &byte, 1) == 1 && byte == 'x');
        rounds[2]++;
    }
    return unused;
}

static int ping[2], pong[2];

static void *echo(void *unused)
{
    char byte;
    while (read(ping[0], &byte, 1) == 1)
        EXPECT(write(pong[1], &byte, 1) == 1);
    return unused;
}

static void *asker(void *unused)
{
    char sent = 0, got;
    while (!over) {
        EXPECT(write(ping[1], &sent, 1) == 1);
        EXPECT(read(pong[0], &got, 1) == 1 && got == sent);
        sent++;
        rounds[3]++;
        usleep(100);
    }
    return unused;
}

static volatile sig_atomic_t handled, alarms;
static atomic_bool waiting;
static pthread_t waiter_thread;

static void on_user(int signal)
{
    (void)signal;
    handled++;
}

static void on_alarm(int signal)
{
    (void)signal;
    alarms++;
}

/* Each signal ends exactly one sigsuspend. */
static void *waiter(void *unused)
{
    sigset_t open;
    sigfillset(&open);
    sigdelset(&open, SIGUSR1);
    while (!over) {
        int before = handled;
        waiting = true;
        EXPECT(sigsuspend(&open) == -1 && errno == EINTR);
        EXPECT(handled == before + 1);
        rounds[4]++;
    }
    return unused;
}

static void *signaller(void *unused)
{
    while (!over) {
        while (!waiting && !over)
            usleep(50);
        waiting = false;
        usleep(300);
        EXPECT(pthread_kill(waiter_thread, SIGUSR1) == 0);
    }
    return unused;
}

static int work(double ms)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    struct sigaction user = {.sa_handler = on_user}, alarm = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &user, NULL);
    sigaction(SIGALRM, &alarm, NULL);
    EXPECT(pipe(ping) == 0 && pipe(pong) == 0);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    void *(*const parts[])(void *) = {writer, mapper, sleeper, echo, asker, waiter, signaller};
    pthread_t threads[7];
    for (int i = 0; i < 7; i++)
        EXPECT(pthread_create(i == 5 ? &waiter_thread : &threads[i], NULL, parts[i], NULL) == 0);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    struct itimerval every = {{0, 3000}, {0, 3000}};
    setitimer(ITIMER_REAL, &every, NULL);
    struct pollfd input = {.fd = 0, .events = POLLIN};
    for (double end = now_ms() + ms; ms > 0 ? now_ms() < end : poll(&input, 1, 0) <= 0;) {
        pthread_t brief; /* threads come and go */
        EXPECT(pthread_create(&brief, NULL, (void *(*)(void *))strdup, "x") == 0);
        void *made;
        EXPECT(pthread_join(brief, &made) == 0);
        EXPECT(strcmp(made, "x") == 0);
        free(made);
        usleep(500);
    }
    EXPECT(alarms > 0);
    unsigned long long least = ~0ull;
    for (int i = 0; i < 5; i++)
        least = rounds[i] < least ? rounds[i] : least;
    EXPECT(least > 0);
    printf("verified %llu\n", least);
    fflush(stdout);
    _exit(0);
}

static int words(size_t pages)
{
    volatile uint64_t *memory = aligned_alloc(4096, 2 * pages * 4096);
    EXPECT(memory != NULL);
    memset((void *)memory, 1, 2 * pages * 4096);
    puts("begun");
    fflush(stdout);
    for (;;)
        for (size_t page = 0; page < pages; page++) {
            memory[512 * page]++;
            memory[512 * (pages + page)] = UINT64_C(0x0101010101010101);
        }
}

static int steps(char **argv)
{
    const size_t room = 64 * 1024, pages = (size_t)atoi(argv[2]);
    static size_t used;
    used = pages;
    uint64_t *memory = mmap(NULL, room * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT(memory != MAP_FAILED && mprotect(memory, pages * 4096, PROT_READ | PROT_WRITE) == 0);
    memset(memory, 0x5a, pages * 4096);
    uint64_t state = 42;
    char command[16];
    size_t number;
    printf("%d %p\n", getpid(), (void *)memory);
    fflush(stdout);
    while (scanf("%15s %zu", command, &number) == 2) {
        for (size_t i = 0; i < number && strcmp(command, "write") == 0; i++)
            memory[512 * (next(&state) % used) + state % 512] = state;
        for (size_t i = 0; i < number && strcmp(command, "same") == 0; i++) {
            volatile uint64_t *word = &memory[512 * (i % used)];
            *word = *word;
        }
        if (strcmp(command, "grow") == 0) {
            EXPECT(mprotect(memory + 512 * used, number * 4096, PROT_READ | PROT_WRITE) == 0);
            memset(memory + 512 * used, 0x33, number * 4096);
            used += number;
        }
        if (strcmp(command, "wait") == 0) {
            pid_t child = vfork();
            if (child == 0) {
                usleep((useconds_t)number * 1000);
                _exit(0);
            }
            EXPECT(waitpid(child, NULL, 0) == child);
        }
        if (strcmp(command, "exec") == 0)
            execv("/proc/self/exe", argv);
        printf("done %zu\n", used);
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    EXPECT(argc == 3);
    if (strcmp(argv[1], "words") == 0)
        return words((size_t)atoi(argv[2]));
    return strcmp(argv[1], "work") == 0 ? work(atof(argv[2])) : steps(argv);
}
