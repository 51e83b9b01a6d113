/*
 * The scans for what was written, of this process's own memory, while it is written to between any two calls of the kernel: as by a
 * thread that was in the kernel when the others were held, and ends its page fault or its call meanwhile. What such a thread
 * does may be seen in this harvest or in the next one, and nothing else may be lost.
 * build with: lab/native/holder/known.c lab/native/holder/space.c lab/native/holder/harvest.c lab/native/holder/copy.c lab/native/holder/control.c
 * build with: lab/native/holder/descriptors.c lab/native/holder/compare.c lab/native/holder/track.c lab/native/holder/scan-private.c lab/native/holder/scan-shared.c
 * build with: -Wl,--wrap=ioctl
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../native/holder/scan.h"
#include "../../../test/native/memory.h"

enum { PAGES = 192, MAPPINGS = 100, ROUNDS = 15 };

static uint64_t seed = 1;

static uint64_t random_below(uint64_t limit)
{
    return next_random(&seed) % limit;
}

enum kind { ANONYMOUS, PRIVATE_FILE, SHARED };

static uint8_t *memory;
static enum kind kind;
static bool disturbing;

static void write_page(uint64_t page)
{
    memory[page * PAGE_BYTES + random_below(PAGE_BYTES)] = (uint8_t)(1 + random_below(255));
}

static void act(void)
{
    uint64_t page = random_below(PAGES), count = 1 + random_below(8);
    if (count > PAGES - page)
        count = PAGES - page;
    if (kind != SHARED && random_below(4) == 0)
        CHECK(madvise(memory + page * PAGE_BYTES, count * PAGE_BYTES, MADV_DONTNEED) == 0);
    else
        write_page(page);
}

int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument);

int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
    if (disturbing && random_below(2))
        act();
    int result = __real_ioctl(fd, request, argument);
    if (disturbing && random_below(2))
        act();
    return result;
}

static void harvest(struct watch *watch, const struct mapping *mapping, bool fresh)
{
    watch->find_count = watch->run_count = 0;
    int file = mapping->is_private ? -1 : open_mapped_file(watch, mapping);
    CHECK((mapping->is_private ? scan_private(watch, mapping) : scan_shared(watch, mapping, file, fresh)) == 0);
    if (file >= 0)
        close(file);
    CHECK(copy_written(watch) == 0);
}

/* Pages without a number hold what the file does, or nothing. */
static void compare(const struct watch *watch, const uint8_t *file)
{
    static const uint8_t zeros[PAGE_BYTES];
    for (uint64_t page = 0; page < PAGES; page++) {
        const uint8_t *at = memory + page * PAGE_BYTES;
        const struct piece *piece = space_find(&watch->space, (uintptr_t)at);
        const uint64_t number = piece ? piece_page(piece, (uintptr_t)at) : 0;
        const uint8_t *expected = piece && (kind != PRIVATE_FILE || known_has(&watch->known, number))
                                      ? mirror_of(watch, number, 1)
                                  : file ? file + page * PAGE_BYTES
                                         : zeros;
        if (memcmp(at, expected, PAGE_BYTES) != 0) {
            fprintf(stderr, "kind %d: page %ju is lost\n", kind, (uintmax_t)page);
            abort();
        }
    }
}

static void test_scans(enum kind of, int uffd)
{
    static uint8_t file[PAGES * PAGE_BYTES];
    kind = of;
    int fd = kind == ANONYMOUS ? -1 : memfd_create("scans", MFD_CLOEXEC);
    if (kind != ANONYMOUS)
        CHECK(fd >= 0 && ftruncate(fd, sizeof file) == 0);
    if (kind == PRIVATE_FILE) {
        memset(file, 0x77, sizeof file);
        CHECK(pwrite(fd, file, sizeof file, 0) == sizeof file);
    }
    const int flags = kind == ANONYMOUS ? MAP_PRIVATE | MAP_ANONYMOUS : kind == SHARED ? MAP_SHARED : MAP_PRIVATE;
    memory = mmap(NULL, sizeof file, PROT_READ | PROT_WRITE, flags, fd, 0);
    CHECK(memory != MAP_FAILED && madvise(memory, sizeof file, MADV_NOHUGEPAGE) == 0);
    struct watch watch = {.pid = getpid(), .uffd = uffd};
    watch.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    watch.mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    watch.space.page_limit = 2 * PAGES;
    watch.mirror = calloc(2 * PAGES, PAGE_BYTES);
    CHECK(watch.pagemap >= 0 && watch.mem >= 0 && watch.mirror);
    known_init(&watch.known, watch.space.page_limit);
    const struct mapping mapping = {
        .start = (uintptr_t)memory,
        .end = (uintptr_t)memory + sizeof file,
        .is_private = kind != SHARED,
        .of_file = kind == PRIVATE_FILE,
        .name = "test",
    };
    struct uffdio_register range = {
        .range = {.start = mapping.start, .len = sizeof file},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    CHECK(ioctl(uffd, UFFDIO_REGISTER, &range) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (uint64_t writes = random_below(24); writes > 0; writes--)
            act();
        disturbing = true;
        harvest(&watch, &mapping, round == 0);
        disturbing = false;
        harvest(&watch, &mapping, false);
        compare(&watch, kind == PRIVATE_FILE ? file : NULL);
    }
    CHECK(ioctl(uffd, UFFDIO_UNREGISTER, &range.range) == 0);
    munmap(memory, sizeof file);
    close(fd);
    close(watch.pagemap);
    close(watch.mem);
    free(watch.mirror);
    free(watch.space.numbered);
    free(watch.space.order);
    free(watch.space.news);
    free(watch.known.words);
    free(watch.finds);
    free(watch.runs);
}

/* Whatever is written meanwhile: more ranges than one answer holds are told once each, in order. */
static void test_once(int uffd)
{
    enum { MANY = 4096 };
    static struct scan_region regions[REGION_COUNT];
    uint8_t *many = mmap(NULL, MANY * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(many != MAP_FAILED && madvise(many, MANY * PAGE_BYTES, MADV_NOHUGEPAGE) == 0);
    const uint64_t first = (uintptr_t)many, end = first + MANY * PAGE_BYTES;
    struct uffdio_register range = {.range = {.start = first, .len = end - first}, .mode = UFFDIO_REGISTER_MODE_WP};
    CHECK(ioctl(uffd, UFFDIO_REGISTER, &range) == 0);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), told = 0;
    uint64_t last = first;
    static const struct wanted written = {
        .all = CATEGORY_WRITTEN | CATEGORY_PRESENT, .reported = CATEGORY_WRITTEN, .arm = true};
    for (uint64_t at = first; at < end;) {
        for (size_t page = 1; page < MANY; page += 2)
            many[page * PAGE_BYTES]++;
        int count = scan_next(pagemap, &written, &at, end, regions, REGION_COUNT);
        CHECK(count >= 0);
        for (int i = 0; i < count; i++) {
            CHECK(regions[i].start >= last && regions[i].start < regions[i].end);
            last = regions[i].end;
        }
        told += count;
    }
    CHECK(told == MANY / 2);
    CHECK(ioctl(uffd, UFFDIO_UNREGISTER, &range.range) == 0);
    munmap(many, MANY * PAGE_BYTES);
    close(pagemap);
}

int main(void)
{
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    };
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0) {
        printf("test_scans: this kernel has no marks to scan for (Linux 6.7)\n");
        return 0;
    }
    test_once(uffd);
    for (int i = 0; i < MAPPINGS; i++) {
        test_scans(ANONYMOUS, uffd);
        test_scans(PRIVATE_FILE, uffd);
        test_scans(SHARED, uffd);
    }
    close(uffd);
    return 0;
}
