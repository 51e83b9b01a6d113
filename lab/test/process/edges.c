/*
 * Processes of kinds that a watcher could harm. Each begins with a line "PID ADDRESS" and ends with status 0 when its input ends and
 * nothing was wrong; else it says what, and ends with status 1.
 *
 *   leaderless   the first thread ends at the first line; another writes a page for each one after it, and answers
 *   sequences    restartable sequences (rseq(2)), one after the other: none goes on after the kernel has forgotten it
 *   dispatch     system calls are dispatched by the process itself (prctl(2), PR_SET_SYSCALL_USER_DISPATCH)
 *   vfork        a thread counts while the first one waits in vfork(2), until the line after the next; prints the count when the child is gone
 *   clone        makes a child by clone(2) that tells nobody of its end and executes a program; then as leaderless
 *   filter FILE  installs a seccomp filter at the first line, and executes FILE with `steps 50`
 *   become FILE  executes FILE at the first line
 *   executes N   one of four threads, each of which writes all the time, executes this program anew, N times in all; every third time
 *                the first thread has ended by then
 *   limits       prints its limit of open files and its masks of ignored and blocked signals
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPECT(condition)                                                                                             \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "edges: line %d: %s does not hold (errno %d)\n", __LINE__, #condition, errno);            \
            _exit(1);                                                                                                 \
        }                                                                                                             \
    } while (0)

enum { PAGES = 64 };
static volatile uint64_t *memory;

static void begin(void)
{
    memory = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(memory != MAP_FAILED);
    printf("%d %p\n", getpid(), (void *)memory);
    fflush(stdout);
}

static bool input_ended(void)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) > 0;
}

static void *write_on_demand(void *unused)
{
    char line[16];
    for (uint64_t i = 0; fgets(line, sizeof line, stdin); i++) {
        memory[512 * (i % PAGES)] = i + 1;
        puts("done");
        fflush(stdout);
    }
    _exit(0);
    return unused;
}

static void leaderless(void)
{
    pthread_t thread;
    char line[16];
    EXPECT(fgets(line, sizeof line, stdin));
    EXPECT(pthread_create(&thread, NULL, write_on_demand, NULL) == 0);
    puts("done");
    fflush(stdout);
    pthread_exit(NULL);
}

#ifdef __x86_64__
/* Ends with true when the kernel has forgotten the sequence while it ran. */
static bool sequence(struct rseq *rseq, uint64_t turns)
{
    __asm__ goto(".pushsection __rseq_cs, \"aw\"\n"
                 ".balign 32\n"
                 "9: .long 0, 0\n"
                 ".quad 1f, 2f - 1f, 4f\n"
                 ".popsection\n"
                 "leaq 9b(%%rip), %%rax\n"
                 "movq %%rax, 8(%[rseq])\n"
                 "1:\n"
                 "cmpq %%rax, 8(%[rseq])\n"
                 "jne %l[forgotten]\n"
                 "decq %[turns]\n"
                 "jnz 1b\n"
                 "2:\n"
                 "jmp %l[done]\n"
                 ".long 0x53053053\n" /* RSEQ_SIG */
                 "4: jmp %l[aborted]\n"
                 :
                 : [rseq] "r"(rseq), [turns] "r"(turns)
                 : "rax", "memory", "cc"
                 : forgotten, done, aborted);
done:
aborted:
    return false;
forgotten:
    return true;
}

static void sequences(void)
{
    struct rseq *rseq = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    EXPECT(__rseq_size > 0);
    while (!input_ended())
        for (int i = 0; i < 10; i++)
            EXPECT(!sequence(rseq, 3000000));
}

static atomic_int dispatched;
static volatile char selector;

static void on_dispatch(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    selector = 0; /* SYSCALL_DISPATCH_FILTER_ALLOW */
    EXPECT(info->si_syscall == SYS_getppid);
    dispatched++;
}

static void dispatch(void)
{
    struct sigaction action = {.sa_sigaction = on_dispatch, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    EXPECT(prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &selector) == 0);
    for (int own = 1; selector = 0, !input_ended(); own++) {
        selector = 1; /* SYSCALL_DISPATCH_FILTER_BLOCK */
        for (volatile int i = 0; i < 2000000; i++)
            ;
        getppid();
        EXPECT(dispatched == own);
    }
}
#endif

static atomic_ulong counted;
static atomic_bool counting = true;

static void *count(void *unused)
{
    while (counting) {
        counted++;
        memory[counted % 512]++;
    }
    return unused;
}

static void vforked(void)
{
    pthread_t thread;
    char line[16];
    EXPECT(pthread_create(&thread, NULL, count, NULL) == 0);
    while (fgets(line, sizeof line, stdin)) {
        unsigned long before = counted;
        pid_t child = vfork();
        if (child == 0) {
            char byte;
            while (read(0, &byte, 1) == 1 && byte != '\n')
                ;
            _exit(0);
        }
        printf("%lu\n", counted - before);
        fflush(stdout);
        EXPECT(waitpid(child, NULL, 0) == child);
    }
    counting = false;
}

static int become_true(void *unused)
{
    (void)unused;
    execl("/bin/true", "true", NULL);
    _exit(1);
}

static void cloned(void)
{
    static char stack[65536];
    char line[16];
    EXPECT(fgets(line, sizeof line, stdin));
    for (int i = 0; i < 3; i++) {
        int status;
        pid_t child = clone(become_true, stack + sizeof stack, 0, NULL);
        EXPECT(child > 0 && waitpid(child, &status, __WALL) == child && status == 0);
    }
    puts("done");
    fflush(stdout);
    write_on_demand(NULL);
}

static void filter(void)
{
    struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    struct sock_fprog program = {1, &allow};
    EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void become(const char *file)
{
    char line[16];
    EXPECT(fgets(line, sizeof line, stdin));
    execl(file, file, "steps", "50", NULL);
    EXPECT(false);
}

static void *write_always(void *unused)
{
    for (uint64_t i = 0;; i++)
        memory[512 * (i % PAGES)] = i;
    return unused;
}

static const char *executions_left;

static void *execute(void *unused)
{
    char left[16];
    usleep(3000);
    snprintf(left, sizeof left, "%d", atoi(executions_left) - 1);
    char path[4096];
    ssize_t bytes = readlink("/proc/thread-self/exe", path, sizeof path - 1);
    EXPECT(bytes > 0);
    path[bytes] = '\0';
    execl(path, path, "executes", left, NULL);
    EXPECT(false);
    return unused;
}

static void executes(const char *left)
{
    char line[16];
    executions_left = left;
    if (atoi(left) == 0) {
        EXPECT(!fgets(line, sizeof line, stdin));
        return;
    }
    pthread_t thread;
    for (int i = 0; i < 3; i++)
        EXPECT(pthread_create(&thread, NULL, write_always, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, execute, NULL) == 0);
    if (atoi(left) % 3 == 0)
        pthread_exit(NULL);
    pause();
}

static void limits(void)
{
    struct rlimit files;
    char line[256];
    EXPECT(getrlimit(RLIMIT_NOFILE, &files) == 0);
    printf("files %llu\n", (unsigned long long)files.rlim_cur);
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        if (strncmp(line, "SigBlk", 6) == 0 || strncmp(line, "SigIgn", 6) == 0)
            fputs(line, stdout);
}

int main(int argc, char **argv)
{
    EXPECT(argc >= 2);
    const char *kind = argv[1];
    if (strcmp(kind, "limits") == 0) {
        limits();
        return 0;
    }
    begin();
    if (strcmp(kind, "leaderless") == 0)
        leaderless();
#ifdef __x86_64__
    else if (strcmp(kind, "sequences") == 0)
        sequences();
    else if (strcmp(kind, "dispatch") == 0)
        dispatch();
#endif
    else if (strcmp(kind, "vfork") == 0)
        vforked();
    else if (strcmp(kind, "clone") == 0)
        cloned();
    else if (strcmp(kind, "executes") == 0)
        executes(argv[2]);
    else if (strcmp(kind, "filter") == 0) {
        filter();
        become(argv[2]);
    } else if (strcmp(kind, "become") == 0)
        become(argv[2]);
    return 0;
}
