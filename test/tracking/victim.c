/*
 * A stand-in for QEMU: maps a RAM file and writes pages on command, so that a test knows exactly what was written.
 *
 *   victim PATH LAYOUT        PATH `memfd:PAGES` makes a memfd at descriptor 100 instead of opening a file
 *   LAYOUT  whole | halves (two mappings, in the other order in memory) | twice (all of it two times) | huge (whole,
 *           huge pages wanted) | blocks (whole, and beside it two blocks of 2 and 3 anonymous pages, as QEMU makes them: the pages
 *           that follow those of the file) | backends (two halves as anonymous blocks, as QEMU makes memory backends: in the
 *           file only when something puts them there)
 *
 * Commands on stdin, one a line, numbers decimal; each is answered by a line on stdout, `ok` and a result:
 *   write FIRST COUNT   stores into each page        write2 FIRST COUNT  the same through the second mapping (twice)
 *   stride FIRST COUNT  stores into every other page, COUNT of them
 *   load FIRST COUNT    only reads                   fill OFFSET BYTES   stores over a byte range
 *   kernel FIRST COUNT  read(2) into the pages       fork                forks a child that ends at once
 *   punch FIRST COUNT   gives the pages back to the system (they read as zero then)
 *   discard FIRST COUNT the same as QEMU does it with anonymous memory
 *   unmap               gives the first mapping up (halves, backends)
 *   close FD            closes a descriptor
 *   replace             private memory full of sevens where the first mapping was; later it says how many sevens are left
 *   sweep               a thread stores into page 0, 1, 2, ... until `stop`, which says how many it has done
 *   address             where the first mapping begins      ld_preload    the variable as children see it
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ull
#define HUGE_PAGE (2ull << 20)
#define NOWHERE UINT64_MAX

static int fd;
static uint64_t pages;
static char *first_half, *second_half, *second_copy, *blocks[2];
static const uint64_t block_pages[2] = {2, 3};
static atomic_bool sweeping;
static uint64_t swept;

static void check(int good, const char *what)
{
    if (good)
        return;
    perror(what);
    exit(1);
}

static char *map(uint64_t first, uint64_t count)
{
    /* As QEMU does: room that starts at a multiple of 2 MiB, then the file over it, so that huge pages would fit. */
    char *room = mmap(NULL, count * PAGE + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(room != MAP_FAILED, "mmap");
    room = (char *)(((uintptr_t)room + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    int flags = first == NOWHERE ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    char *at = mmap(room, count * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, first == NOWHERE ? -1 : fd,
                    first == NOWHERE ? 0 : (off_t)(first * PAGE));
    check(at != MAP_FAILED, "mmap");
    return at;
}

static char *byte_at(uint64_t offset)
{
    uint64_t half = pages / 2 * PAGE;
    if (blocks[0] && offset >= pages * PAGE) {
        uint64_t beyond = offset - pages * PAGE, first = block_pages[0] * PAGE;
        return beyond < first ? blocks[0] + beyond : blocks[1] + (beyond - first);
    }
    return second_half && offset >= half ? second_half + (offset - half) : first_half + offset;
}

static void open_ram(const char *path, const char *layout)
{
    if (strncmp(path, "memfd:", 6) == 0) {
        int made = memfd_create("victim", 0);
        check(made >= 0 && ftruncate(made, (off_t)(strtoull(path + 6, NULL, 10) * PAGE)) == 0, "memfd");
        fd = dup2(made, 100);
    } else {
        fd = open(path, O_RDWR);
    }
    struct stat file;
    check(fd >= 0 && fstat(fd, &file) == 0, path);
    pages = (uint64_t)file.st_size / PAGE;
    if (strcmp(layout, "halves") == 0) {
        second_half = map(pages / 2, pages - pages / 2);
        first_half = map(0, pages / 2);
        return;
    }
    if (strcmp(layout, "backends") == 0) {
        first_half = map(NOWHERE, pages / 2);
        second_half = map(NOWHERE, pages - pages / 2);
        return;
    }
    first_half = map(0, pages);
    if (strcmp(layout, "twice") == 0)
        second_copy = map(0, pages);
    for (int n = 0; n < 2 && strcmp(layout, "blocks") == 0; n++)
        blocks[n] = map(NOWHERE, block_pages[n]);
    if (strcmp(layout, "huge") == 0)
        check(madvise(first_half, pages * PAGE, MADV_HUGEPAGE) == 0, "madvise");
}

static void *sweep(void *unused)
{
    (void)unused;
    /* At least one page, however late this thread gets to run. */
    for (swept = 0; swept < pages && (swept == 0 || atomic_load(&sweeping)); swept++)
        (*byte_at(swept * PAGE))++;
    return NULL;
}

static void run(const char *command, uint64_t a, uint64_t b)
{
    static pthread_t sweeper;
    uint64_t result = 0;
    volatile char sink = 0;
    if (strcmp(command, "write") == 0) {
        for (uint64_t page = a; page < a + b; page++)
            (*byte_at(page * PAGE + page % PAGE))++;
    } else if (strcmp(command, "write2") == 0) {
        for (uint64_t page = a; page < a + b; page++)
            second_copy[page * PAGE]++;
    } else if (strcmp(command, "stride") == 0) {
        for (uint64_t i = 0; i < b; i++)
            (*byte_at((a + 2 * i) * PAGE))++;
    } else if (strcmp(command, "load") == 0) {
        for (uint64_t page = a; page < a + b; page++)
            sink += *byte_at(page * PAGE);
    } else if (strcmp(command, "fill") == 0) {
        for (uint64_t offset = a; offset < a + b; offset++)
            (*byte_at(offset))++;
    } else if (strcmp(command, "kernel") == 0) {
        int zero = open("/dev/zero", O_RDONLY);
        for (uint64_t page = a; page < a + b; page++)
            check(read(zero, byte_at(page * PAGE), PAGE) == PAGE, "read");
        close(zero);
    } else if (strcmp(command, "punch") == 0) {
        check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(a * PAGE), (off_t)(b * PAGE)) == 0,
              "fallocate");
    } else if (strcmp(command, "discard") == 0) {
        check(madvise(byte_at(a * PAGE), b * PAGE, MADV_DONTNEED) == 0, "madvise");
    } else if (strcmp(command, "unmap") == 0) {
        check(munmap(first_half, pages / 2 * PAGE) == 0, "munmap");
    } else if (strcmp(command, "close") == 0) {
        check(close((int)a) == 0, "close");
    } else if (strcmp(command, "flush") == 0) {
        int file = open("/tmp", O_TMPFILE | O_RDWR, 0600);
        check(file >= 0 && write(file, "content", 7) == 7 && fdatasync(file) == 0, "fdatasync");
        close(file);
    } else if (strcmp(command, "fork") == 0) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        check(waitpid(child, NULL, 0) == child, "fork");
    } else if (strcmp(command, "sweep") == 0) {
        atomic_store(&sweeping, true);
        check(pthread_create(&sweeper, NULL, sweep, NULL) == 0, "thread");
    } else if (strcmp(command, "stop") == 0) {
        atomic_store(&sweeping, false);
        pthread_join(sweeper, NULL);
        result = swept;
    } else if (strcmp(command, "replace") == 0) {
        static char *replaced;
        if (!replaced) {
            check(munmap(first_half, pages * PAGE) == 0, "munmap");
            replaced = mmap(first_half, pages * PAGE, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            check(replaced == first_half, "mmap");
            memset(replaced, 7, pages * PAGE);
        }
        for (uint64_t i = 0; i < pages * PAGE; i++)
            result += replaced[i] == 7;
    } else if (strcmp(command, "address") == 0) {
        result = (uintptr_t)first_half;
    } else if (strcmp(command, "ld_preload") == 0) {
        printf("ok %s\n", getenv("LD_PRELOAD") ? getenv("LD_PRELOAD") : "");
        return;
    } else {
        exit(2);
    }
    printf("ok %llu\n", (unsigned long long)result);
}

int main(int argc, char **argv)
{
    char command[32], line[256];
    check(argc == 3, "victim PATH LAYOUT");
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_ram(argv[1], argv[2]);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        unsigned long long a = 0, b = 0;
        if (sscanf(line, "%31s %llu %llu", command, &a, &b) >= 1)
            run(command, a, b);
    }
    return 0;
}
