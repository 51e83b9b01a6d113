/*
 * A process whose every write is known: it does to its memory what it is told, and nothing else there. Each line read is
 * COMMAND SLOT FIRST COUNT, a slot is a mapping of its own, pages are counted in it; each is answered with a number:
 *
 *   private, memfd, anon, sysv, file, huge, heap   maps COUNT pages into the slot; its address. Shared are memfd, anon and sysv;
 *                 file is a private mapping of one, heap is brk(2), huge asks for large pages
 *   droppable, sealed, sealedfile, hugetlb, hugeshared, secret   the same, of kinds that are seldom; the address is 0 where there are none
 *   write, zeros  a line of each page, with what it did not hold, or zeros; read  a word of each
 *   dontneed, pageout, guard                       madvise(2)
 *   forbid, allow                                  mprotect(2), to no access and back
 *   fixed         maps the same kind anew over the pages; unmap  leaves nothing there; grow  mremap(2) to COUNT pages
 *   sparse        writes COUNT pages that are FIRST pages apart
 *   stacks        COUNT threads; the stack of each is FIRST pages, a line is written in the middle; then they wait
 *   resident      how many pages of the range are there (mincore(2))
 *   fork          a child that only waits; its pid
 *   realloc       realloc(3) of the slot's memory to COUNT pages, all of them filled with their number; how many have lost it
 *   uffd          opens a userfaultfd
 *   track, missing, minor, untrack   registers the pages with it, to see writes or to serve faults, or no longer; 0 or errno
 *   marked        how many pages its own tracking calls written since the last time
 *   span          mremap(2) of the pages to another place; 0 or errno
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <unistd.h>

#include "../../../native/addon/pagemap.h"

#define EXPECT(condition)                                                                                             \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "oracle: line %d: %s does not hold (errno %d)\n", __LINE__, #condition, errno);           \
            _exit(1);                                                                                                 \
        }                                                                                                             \
    } while (0)

#define PAGE ((size_t)4096)
#define READ_WRITE (PROT_READ | PROT_WRITE)

struct slot {
    uint8_t *at;
    size_t pages;
    int flags, fd;
};

static struct slot slots[16];
static const char *file;

static void *place(const struct slot *slot, size_t first, size_t pages, bool fixed)
{
    void *at = mmap(fixed ? slot->at + first * PAGE : NULL, pages * PAGE, READ_WRITE,
                    slot->flags | MAP_NORESERVE | (fixed ? MAP_FIXED : 0), slot->fd, (off_t)(first * PAGE));
    EXPECT(at != MAP_FAILED);
    return at;
}

static bool map(struct slot *slot, const char *kind, size_t pages)
{
    struct slot made = {.pages = pages, .fd = -1, .flags = MAP_PRIVATE | MAP_ANONYMOUS};
    if (strcmp(kind, "memfd") == 0) {
        made.fd = memfd_create("oracle", 0);
        made.flags = MAP_SHARED;
        EXPECT(made.fd >= 0 && ftruncate(made.fd, (off_t)(pages * PAGE)) == 0);
    } else if (strcmp(kind, "file") == 0) {
        made.fd = open(file, O_RDONLY);
        made.flags = MAP_PRIVATE;
        EXPECT(made.fd >= 0);
    } else if (strcmp(kind, "anon") == 0)
        made.flags = MAP_SHARED | MAP_ANONYMOUS;
    else if (strcmp(kind, "sysv") == 0) {
        int id = shmget(IPC_PRIVATE, pages * PAGE, 0600);
        made.at = shmat(id, NULL, 0);
        EXPECT(made.at != MAP_FAILED && shmctl(id, IPC_RMID, NULL) == 0);
    } else if (strcmp(kind, "heap") == 0) {
        uint8_t *now = sbrk(0);
        EXPECT(sbrk((intptr_t)(-(uintptr_t)now % PAGE)) == now);
        made.at = sbrk((intptr_t)(pages * PAGE));
        EXPECT((uintptr_t)made.at % PAGE == 0);
    } else if (strcmp(kind, "huge") == 0) {
        const uintptr_t large = 2u << 20;
        uintptr_t room = (uintptr_t)place(&made, 0, pages + large / PAGE, false);
        made.at = (uint8_t *)((room + large - 1) / large * large);
        madvise(made.at, pages * PAGE, MADV_HUGEPAGE); /* where there are none, it is ordinary memory */
    } else if (strcmp(kind, "droppable") == 0)
        made.flags = MAP_ANONYMOUS | 0x08 /* MAP_DROPPABLE, Linux 6.11 */;
    else if (strcmp(kind, "hugetlb") == 0)
        made.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB;
    else if (strcmp(kind, "hugeshared") == 0) {
        made.fd = memfd_create("oracle", MFD_HUGETLB);
        made.flags = MAP_SHARED;
        EXPECT(made.fd >= 0 && ftruncate(made.fd, (off_t)(pages * PAGE)) == 0);
    } else if (strcmp(kind, "sealedfile") == 0) {
        made.fd = memfd_create("oracle", MFD_ALLOW_SEALING);
        made.flags = MAP_SHARED;
        EXPECT(made.fd >= 0 && ftruncate(made.fd, (off_t)(pages * PAGE)) == 0);
    } else if (strcmp(kind, "secret") == 0) {
        made.fd = (int)syscall(447 /* memfd_secret */, 0);
        made.flags = MAP_SHARED;
        if (made.fd < 0 || ftruncate(made.fd, (off_t)(pages * PAGE)) < 0)
            return true;
    } else if (strcmp(kind, "private") != 0 && strcmp(kind, "sealed") != 0)
        return false;
    if (!made.at)
        made.at = place(&made, 0, pages, false);
    if (strcmp(kind, "sealedfile") == 0)
        EXPECT(fcntl(made.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) == 0);
    if (strcmp(kind, "sealed") == 0)
        syscall(462 /* mseal, Linux 6.10 */, made.at, pages * PAGE, 0);
    *slot = made;
    return true;
}

static pthread_barrier_t written;

static void *wait_there(void *middle)
{
    *(volatile uint8_t *)middle = 1;
    pthread_barrier_wait(&written);
    while (pause() < 0)
        ;
    return middle;
}

static void stacks(struct slot *slot, size_t pages, size_t count)
{
    pthread_barrier_init(&written, NULL, (unsigned)count + 1);
    map(slot, "private", pages * count);
    for (size_t i = 0; i < count; i++) {
        pthread_t thread;
        pthread_attr_t attributes;
        uint8_t *stack = slot->at + i * pages * PAGE;
        pthread_attr_init(&attributes);
        EXPECT(pthread_attr_setstack(&attributes, stack, pages * PAGE) == 0);
        EXPECT(pthread_create(&thread, &attributes, wait_there, stack + pages / 2 * PAGE) == 0);
    }
    pthread_barrier_wait(&written);
}

static size_t resident(const uint8_t *at, size_t pages)
{
    static uint8_t there[4096];
    size_t found = 0;
    for (size_t page = 0; page < pages; page += sizeof there) {
        size_t count = pages - page < sizeof there ? pages - page : sizeof there;
        EXPECT(mincore((void *)(at + page * PAGE), count * PAGE, there) == 0);
        for (size_t i = 0; i < count; i++)
            found += there[i] & 1;
    }
    return found;
}

static pid_t child(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    EXPECT(pid > 0);
    return pid;
}

static struct uffd own = {.fd = -1};
static int pagemap;

static void open_own(void)
{
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
                    UFFD_FEATURE_MINOR_SHMEM,
    };
    own.fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    EXPECT(own.fd >= 0 && pagemap >= 0 && ioctl(own.fd, UFFDIO_API, &api) == 0);
}

static size_t marked(uint64_t start, uint64_t end)
{
    struct scan_region regions[256];
    size_t found = 0;
    while (start < end) {
        int count = scan_some(pagemap, &start, end, CATEGORY_WRITTEN, true, regions, 256);
        EXPECT(count >= 0);
        for (int i = 0; i < count; i++)
            found += (regions[i].end - regions[i].start) / PAGE;
    }
    return found;
}

static uint64_t register_own(const char *command, uint8_t *at, size_t bytes)
{
    struct uffdio_register range = {.range = {.start = (uintptr_t)at, .len = bytes}};
    range.mode = strcmp(command, "missing") == 0 ? UFFDIO_REGISTER_MODE_MISSING
                 : strcmp(command, "minor") == 0 ? UFFDIO_REGISTER_MODE_MINOR
                                                 : UFFDIO_REGISTER_MODE_WP;
    if (ioctl(own.fd, UFFDIO_REGISTER, &range) < 0)
        return (uint64_t)errno;
    if (range.mode == UFFDIO_REGISTER_MODE_WP)
        EXPECT(uffd_mark(&own, (uintptr_t)at, bytes, true));
    return 0;
}

static uint64_t grow(struct slot *slot, size_t pages)
{
    uint64_t lost = 0;
    slot->at = realloc(slot->at, pages * PAGE);
    EXPECT(slot->at);
    for (size_t page = 0; page < pages; page++) {
        uint64_t *word = (uint64_t *)(slot->at + page * PAGE);
        lost += page < slot->pages && *word != page;
        *word = page;
    }
    slot->pages = pages;
    return lost;
}

static uint64_t obey(const char *command, struct slot *slot, size_t first, size_t count)
{
    if (map(slot, command, count))
        return (uintptr_t)slot->at;
    if (strcmp(command, "stacks") == 0) {
        stacks(slot, first, count);
        return (uintptr_t)slot->at;
    }
    if (strcmp(command, "realloc") == 0)
        return grow(slot, count);
    if (strcmp(command, "fork") == 0)
        return (uint64_t)child();
    if (strcmp(command, "sparse") == 0) {
        for (size_t i = 0; i < count; i++)
            *(volatile uint8_t *)(slot->at + i * first * PAGE) = 255;
        return 0;
    }
    uint8_t *at = slot->at + first * PAGE;
    static uint64_t value;
    volatile uint64_t sink;
    for (size_t i = 0; i < count; i++) {
        uint64_t *line = (uint64_t *)(at + i * PAGE + 64 * ((first + i) % 64));
        if (strcmp(command, "write") == 0)
            *(volatile uint64_t *)line = ++value;
        else if (strcmp(command, "zeros") == 0)
            *(volatile uint64_t *)line = 0;
        else if (strcmp(command, "read") == 0)
            sink = *(volatile uint64_t *)line;
    }
    (void)sink;
    if (strcmp(command, "dontneed") == 0)
        EXPECT(madvise(at, count * PAGE, MADV_DONTNEED) == 0);
    else if (strcmp(command, "pageout") == 0)
        madvise(at, count * PAGE, 21 /* MADV_PAGEOUT */); /* as far as there is swap */
    else if (strcmp(command, "forbid") == 0 || strcmp(command, "allow") == 0)
        EXPECT(mprotect(at, count * PAGE, *command == 'f' ? PROT_NONE : PROT_READ | PROT_WRITE) == 0);
    else if (strcmp(command, "guard") == 0)
        return madvise(at, count * PAGE, 102 /* MADV_GUARD_INSTALL */) == 0; /* Linux 6.13 */
    else if (strcmp(command, "fixed") == 0)
        place(slot, first, count, true);
    else if (strcmp(command, "unmap") == 0)
        EXPECT(munmap(at, count * PAGE) == 0);
    else if (strcmp(command, "grow") == 0) {
        slot->at = mremap(slot->at, slot->pages * PAGE, count * PAGE, MREMAP_MAYMOVE);
        EXPECT(slot->at != MAP_FAILED);
        slot->pages = count;
        return (uintptr_t)slot->at;
    } else if (strcmp(command, "resident") == 0)
        return resident(at, count);
    else if (strcmp(command, "uffd") == 0)
        open_own();
    else if (strcmp(command, "marked") == 0)
        return marked((uintptr_t)at, (uintptr_t)at + count * PAGE);
    else if (strcmp(command, "track") == 0 || strcmp(command, "missing") == 0 || strcmp(command, "minor") == 0)
        return register_own(command, at, count * PAGE);
    else if (strcmp(command, "untrack") == 0) {
        struct uffdio_range range = {.start = (uintptr_t)at, .len = count * PAGE};
        EXPECT(ioctl(own.fd, UFFDIO_UNREGISTER, &range) == 0);
    } else if (strcmp(command, "span") == 0)
        return mremap(at, count * PAGE, (count + 1) * PAGE, MREMAP_MAYMOVE) == MAP_FAILED ? (uint64_t)errno : 0;
    return 0;
}

int main(int argc, char **argv)
{
    EXPECT(argc == 2);
    file = argv[1];
    char command[16];
    size_t slot, first, count;
    printf("%d\n", getpid());
    fflush(stdout);
    while (scanf("%15s %zu %zu %zu", command, &slot, &first, &count) == 4) {
        EXPECT(slot < 16);
        printf("%llu\n", (unsigned long long)obey(command, &slots[slot], first, count));
        fflush(stdout);
    }
    return 0;
}
