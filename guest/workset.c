/*
 * A program with a known working set, for measuring those who estimate it. Static; runs in the guest.
 *
 *   workset mib=N [mode=M] [order=O] [period_ms=T] [report_ms=T] [phases=N,N,...] [phase_ms=T] [seed=N] [frames=1]
 *
 *   mib       size of the memory it works on; all of it is touched in every period
 *   mode      read | write | mixed (every other page is written, the others only read)
 *   order     forward | random (a permutation, another one each period)
 *             strided:K (uses every K-th page of an area of K x mib; the others lie idle after the start)
 *             straddling (8 bytes across the middle and the end of each page, as they are already: silent stores)
 *             zipf:S (pages are chosen with probability 1/rank^(S/100); those chosen in a period are counted and reported)
 *   period_ms all pages are touched once in this time, spread evenly over it (100)
 *   report_ms how often it says how much it has touched (1000)
 *   frames    says where each page of its memory lies in that of the machine, and keeps it there (takes root)
 *   phases    sizes in MiB, one after another for ever, each for phase_ms (5000); mib is then the largest of them
 *
 * Says on standard output, once all memory has been touched for the first time and whenever a phase begins:
 *   workset ready mib=N pages=N mode=M order=O
 *   workset phase mib=N pages=N
 *   workset frames=X,X,...          before it is ready, hexadecimal, one for each page in order: its number in the machine's memory
 * and, so that its speed can be told, every report_ms:
 *   workset periods=N pages=N distinct=N own=N busy_us=N    touches in this time, of how many different pages, how many it
 *                                                           used to keep account, and how long touching took
 *
 * busy_us over pages is what a page costs: with somebody watching it may grow, and by that he is judged.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define PHASE_COUNT_MAX 16
/* Touched in one go between two looks at the clock. */
#define BATCH_PAGES 256u

enum order { FORWARD, RANDOM, STRIDED, STRADDLING, ZIPF };

static struct {
    uint64_t pages, stride, period_us, phase_us, report_us, seed;
    const char *mode_name, *order_name;
    bool reads, writes, frames;
    enum order order;
    double exponent;
    uint64_t phase_pages[PHASE_COUNT_MAX];
    unsigned phase_count;
} options = {.stride = 1, .period_us = 100000, .phase_us = 5000000, .report_us = 1000000, .seed = 1,
             .mode_name = "mixed", .order_name = "forward", .reads = true, .writes = true};

static uint8_t *memory;
static uint32_t *permutation;
static double *cumulative;
/* In which report each page was counted last. */
static uint32_t *counted_in;
static volatile uint8_t sink;

static struct {
    uint64_t periods, pages, distinct, busy_us, since_us;
    uint32_t report;
} tally = {.report = 1};

static void fail(const char *what)
{
    printf("workset FAILED %s\n", what);
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* splitmix64 */
static uint64_t random_number(void)
{
    uint64_t z = (options.seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Stores what is there, in one instruction. */
static void store_across(uint8_t *border)
{
    struct __attribute__((packed)) { uint64_t value; } volatile *unaligned = (void *)(border - 4);
    unaligned->value = unaligned->value;
}

static void touch(uint64_t index)
{
    uint8_t *page = memory + index * options.stride * PAGE;
    if (options.order == STRADDLING) {
        store_across(page + PAGE / 2);
        store_across(page + PAGE);
        return;
    }
    bool write = options.writes && (!options.reads || (index & 1));
    if (write)
        page[(index * 64) % PAGE]++;
    else
        sink += page[(index * 64) % PAGE];
    tally.distinct += counted_in[index] != tally.report;
    counted_in[index] = tally.report;
}

static void shuffle(uint64_t count)
{
    for (uint64_t i = count - 1; i > 0; i--) {
        uint64_t j = random_number() % (i + 1);
        uint32_t held = permutation[i];
        permutation[i] = permutation[j];
        permutation[j] = held;
    }
}

/* The page whose rank's cumulated share is above a random number; ranks are scattered over memory by the permutation. */
static uint64_t zipf_page(uint64_t count)
{
    double wanted = (double)(random_number() >> 11) / 9007199254740992.0 * cumulative[count - 1];
    uint64_t low = 0, high = count - 1;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (cumulative[middle] < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return permutation[low];
}

static void prepare(uint64_t most)
{
    /* The last page may be stored across. */
    size_t bytes = (most * options.stride + 1) * PAGE;
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    permutation = malloc(most * sizeof *permutation);
    counted_in = calloc(most, sizeof *counted_in);
    if (memory == MAP_FAILED || !permutation || !counted_in)
        fail("out of memory");
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < bytes; at += PAGE)
        memory[at] = 1;
    for (uint64_t i = 0; i < most; i++)
        permutation[i] = (uint32_t)i;
    if (options.order == RANDOM || options.order == ZIPF)
        shuffle(most);
    if (options.order != ZIPF)
        return;
    cumulative = malloc(most * sizeof *cumulative);
    if (!cumulative)
        fail("out of memory");
    double sum = 0;
    for (uint64_t i = 0; i < most; i++)
        cumulative[i] = sum += pow((double)(i + 1), -options.exponent);
}

/* /proc/self/pagemap: proc_pid_pagemap(5). */
static void say_frames(size_t bytes)
{
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0 || mlock(memory, bytes) < 0)
        fail("frames");
    printf("workset frames=");
    for (size_t at = 0; at < bytes; at += PAGE) {
        uint64_t entry, frame_mask = (UINT64_C(1) << 55) - 1;
        if (pread(pagemap, &entry, sizeof entry, (off_t)((uintptr_t)(memory + at) / PAGE * sizeof entry)) != sizeof entry ||
            (entry & frame_mask) == 0)
            fail("frames");
        printf(at == 0 ? "%llx" : ",%llx", (unsigned long long)(entry & frame_mask));
    }
    printf("\n");
    close(pagemap);
}

static void sleep_until(uint64_t us)
{
    struct timespec until = {.tv_sec = (time_t)(us / 1000000u), .tv_nsec = (long)(us % 1000000u) * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/* Pages beside those that it is told to touch: its tables, and the page tables of its memory. */
static uint64_t own_pages(void)
{
    uint64_t bytes = options.pages * sizeof *counted_in;
    if (options.order == RANDOM || options.order == ZIPF)
        bytes += options.pages * sizeof *permutation;
    if (options.order == ZIPF)
        bytes += options.pages * sizeof *cumulative;
    return bytes / PAGE + options.pages * options.stride / (PAGE / 8);
}

static void report(uint64_t now)
{
    if (now - tally.since_us < options.report_us)
        return;
    printf("workset periods=%llu pages=%llu distinct=%llu own=%llu busy_us=%llu\n",
           (unsigned long long)tally.periods, (unsigned long long)tally.pages, (unsigned long long)tally.distinct,
           (unsigned long long)own_pages(), (unsigned long long)tally.busy_us);
    tally.since_us = now;
    tally.pages = tally.distinct = tally.busy_us = 0;
    tally.report++;
}

/* Touches `count` pages once, spread over one period. */
static void period(uint64_t count, uint64_t started_us)
{
    if (options.order == RANDOM)
        shuffle(count);
    for (uint64_t done = 0; done < count;) {
        uint64_t end = done + BATCH_PAGES < count ? done + BATCH_PAGES : count;
        uint64_t before = now_us();
        for (uint64_t i = done; i < end; i++)
            touch(options.order == ZIPF ? zipf_page(count) : options.order == RANDOM ? permutation[i] : i);
        uint64_t after = now_us();
        tally.busy_us += after - before;
        tally.pages += end - done;
        done = end;
        report(after);
        sleep_until(started_us + options.period_us * done / count);
    }
    tally.periods++;
}

static void read_options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value)
            fail("an argument without =");
        *value++ = 0;
        if (strcmp(argv[i], "mib") == 0)
            options.pages = strtoull(value, NULL, 10) * 256;
        else if (strcmp(argv[i], "period_ms") == 0)
            options.period_us = strtoull(value, NULL, 10) * 1000;
        else if (strcmp(argv[i], "phase_ms") == 0)
            options.phase_us = strtoull(value, NULL, 10) * 1000;
        else if (strcmp(argv[i], "report_ms") == 0)
            options.report_us = strtoull(value, NULL, 10) * 1000;
        else if (strcmp(argv[i], "seed") == 0)
            options.seed = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "frames") == 0)
            options.frames = strcmp(value, "0") != 0;
        else if (strcmp(argv[i], "mode") == 0) {
            options.mode_name = value;
            options.reads = strcmp(value, "write") != 0;
            options.writes = strcmp(value, "read") != 0;
        } else if (strcmp(argv[i], "order") == 0) {
            options.order_name = value;
            if (strcmp(value, "random") == 0)
                options.order = RANDOM;
            else if (strcmp(value, "straddling") == 0)
                options.order = STRADDLING;
            else if (sscanf(value, "strided:%llu", (unsigned long long *)&options.stride) == 1)
                options.order = STRIDED;
            else if (sscanf(value, "zipf:%lf", &options.exponent) == 1) {
                options.order = ZIPF;
                options.exponent /= 100;
            }
        } else if (strcmp(argv[i], "phases") == 0) {
            for (char *size; options.phase_count < PHASE_COUNT_MAX && (size = strsep(&value, ",")) != NULL;)
                options.phase_pages[options.phase_count++] = strtoull(size, NULL, 10) * 256;
        } else
            fail(argv[i]);
    }
    for (unsigned i = 0; i < options.phase_count; i++)
        if (options.phase_pages[i] > options.pages)
            options.pages = options.phase_pages[i];
    if (options.pages == 0 || options.stride == 0 || options.period_us == 0)
        fail("mib, the stride and period_ms must not be 0");
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_options(argc, argv);
    prepare(options.pages);
    if (options.frames)
        say_frames(options.pages * options.stride * PAGE);
    printf("workset ready mib=%llu pages=%llu mode=%s order=%s\n", (unsigned long long)options.pages / 256,
           (unsigned long long)options.pages, options.mode_name, options.order_name);
    uint64_t began = now_us(), phase_began = began;
    tally.since_us = began;
    for (unsigned phase = 0;;) {
        uint64_t now = now_us();
        if (options.phase_count > 0 && now - phase_began >= options.phase_us) {
            phase = (phase + 1) % options.phase_count;
            phase_began = now;
            printf("workset phase mib=%llu pages=%llu\n", (unsigned long long)options.phase_pages[phase] / 256,
                   (unsigned long long)options.phase_pages[phase]);
        }
        period(options.phase_count > 0 ? options.phase_pages[phase] : options.pages, now);
    }
}
