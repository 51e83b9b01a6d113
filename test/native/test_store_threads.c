/*
 * The store and its pager with many threads at once: every page is what it was, whoever moves it, and nobody waits for what
 * only another one needs. Also built with ThreadSanitizer (scripts/test-threads.sh).
 * build with: -Wl,--wrap=pread
 */
#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../native/core/pager.h"
#include "../../native/core/store.h"
#include "../../native/shim/uffd.h"

enum { GUESTS = 3, PAGES = 128, ROUNDS = 250, READERS = 3 };

static char directory[64], swap_path[96];
static struct sp_store *store;
static uint8_t model[GUESTS][PAGES][SP_PAGE_BYTES];
static int numbers[GUESTS], files[GUESTS];
static const struct sp_run all = {0, PAGES};
static atomic_bool over;

static char *path_of(char *path, size_t room, const char *leaf)
{
    snprintf(path, room, "%s/%s", directory, leaf);
    return path;
}

static int open_ram(unsigned guest, char *path, size_t room)
{
    char leaf[16];
    snprintf(leaf, sizeof leaf, "ram-%u", guest);
    int fd = open(path_of(path, room, leaf), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && ftruncate(fd, PAGES * SP_PAGE_BYTES) == 0);
    return fd;
}

static void begin(void)
{
    char path[128], name[8];
    snprintf(directory, sizeof directory, "/dev/shm/subpage-test-threads-XXXXXX");
    CHECK(mkdtemp(directory));
    path_of(swap_path, sizeof swap_path, "swap");
    /* Indexes for fewer pages than there are: the sweep works in parts. */
    struct sp_store_options options = {directory, swap_path, 4096, 64, {2, 1, 1}};
    store = store_open(&options);
    CHECK(store);
    memset(model, 0, sizeof model);
    for (unsigned guest = 0; guest < GUESTS; guest++) {
        files[guest] = open_ram(guest, path, sizeof path);
        snprintf(name, sizeof name, "g%u", guest);
        numbers[guest] = store_attach(store, name, path, guest == 2 ? 7 : 1);
        CHECK(numbers[guest] >= 0);
    }
    atomic_store(&over, false);
}

static void end(void)
{
    char command[128];
    store_close(store);
    for (unsigned guest = 0; guest < GUESTS; guest++)
        close(files[guest]);
    snprintf(command, sizeof command, "rm -r %s", directory);
    CHECK(system(command) == 0);
}

/* From a small stock, so that pages are identical or similar across guests; some are noise. */
static void fill_page(uint64_t *seed, uint8_t *page)
{
    uint64_t stock = next_random(seed) % 5 == 0 ? next_random(seed) : next_random(seed) % 7 + 1;
    for (unsigned i = 0; i < SP_PAGE_BYTES; i += 8) {
        uint64_t word = next_random(&stock) & (stock & 64 ? ~UINT64_C(0) : UINT64_C(0xffff));
        memcpy(page + i, &word, 8);
    }
    page[next_random(seed) % SP_PAGE_BYTES] ^= 1;
}

static void write_page(unsigned guest, uint32_t page, uint64_t *seed)
{
    struct sp_run run = {page, 1};
    CHECK(store_drop(store, numbers[guest], &run, 1) == 0);
    fill_page(seed, model[guest][page]);
    CHECK(pwrite(files[guest], model[guest][page], SP_PAGE_BYTES, (off_t)page * SP_PAGE_BYTES) == SP_PAGE_BYTES);
}

static void check_page(unsigned guest, uint32_t page)
{
    uint8_t content[SP_PAGE_BYTES];
    CHECK(store_read(store, numbers[guest], page, content) == 0);
    CHECK(memcmp(content, model[guest][page], SP_PAGE_BYTES) == 0);
}

static void fill_all(uint64_t seed)
{
    for (unsigned guest = 0; guest < GUESTS; guest++)
        for (uint32_t page = 0; page < PAGES; page++)
            write_page(guest, page, &seed);
}

static void evict(unsigned guest, struct sp_run run)
{
    struct store_tally tally = {0};
    CHECK(store_evict(store, numbers[guest], &run, 1, STORE_PATCH, UINT64_MAX, &tally) == 0);
}

/* ---- the disk: may take its time, and fail */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool hold;
    unsigned held, failures; /* readers that wait; of these so many go on with EIO */
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static bool is_swap(int fd)
{
    struct stat one, other;
    return fstat(fd, &one) == 0 && stat(swap_path, &other) == 0 && one.st_ino == other.st_ino;
}

ssize_t __real_pread(int fd, void *into, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *into, size_t bytes, off_t offset)
{
    bool fails = false;
    pthread_mutex_lock(&disk.lock);
    if (disk.hold && is_swap(fd)) {
        disk.held++;
        pthread_cond_broadcast(&disk.changed);
        while (disk.hold && disk.failures == 0)
            pthread_cond_wait(&disk.changed, &disk.lock);
        fails = disk.failures > 0;
        disk.failures -= fails;
        disk.held--;
    }
    pthread_mutex_unlock(&disk.lock);
    errno = EIO;
    return fails ? -1 : __real_pread(fd, into, bytes, offset);
}

static void set_disk(bool hold, unsigned failures)
{
    pthread_mutex_lock(&disk.lock);
    disk.hold = hold;
    disk.failures = failures;
    pthread_cond_broadcast(&disk.changed);
    pthread_mutex_unlock(&disk.lock);
}

static void await_held(void)
{
    pthread_mutex_lock(&disk.lock);
    while (disk.held == 0)
        pthread_cond_wait(&disk.changed, &disk.lock);
    pthread_mutex_unlock(&disk.lock);
}

/* ---- everything at once */

static void *live(void *data)
{
    unsigned guest = (unsigned)(uintptr_t)data;
    uint64_t seed = guest * 7919 + 1, moved;
    uint8_t hashes[PAGES * 16];
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t first = (uint32_t)(next_random(&seed) % PAGES);
        struct sp_run run = {first, (uint32_t)(next_random(&seed) % (PAGES - first)) + 1};
        switch (next_random(&seed) % 5) {
        case 0:
            write_page(guest, first, &seed);
            break;
        case 1:
        case 2:
            evict(guest, run);
            break;
        case 3:
            CHECK(store_fetch(store, numbers[guest], &run, 1, next_random(&seed) & FETCH_URGENT, &moved) == 0);
            break;
        default:
            CHECK(store_hash(store, numbers[guest], &run, 1, hashes) == 0);
        }
        check_page(guest, first);
    }
    return NULL;
}

static void *sweep(void *unused)
{
    (void)unused;
    struct store_swept swept;
    while (!atomic_load(&over))
        CHECK(store_sweep(store, 300, 1, 2, &swept) == 0);
    return NULL;
}

static void *account(void *unused)
{
    (void)unused;
    struct store_share share;
    struct store_totals totals;
    uint8_t kinds[PAGES];
    while (!atomic_load(&over))
        for (unsigned guest = 0; guest < GUESTS; guest++) {
            CHECK(store_share_of(store, numbers[guest], &share) == 0 && share.pages == PAGES);
            CHECK(store_kinds(store, numbers[guest], kinds, PAGES) == 0);
            store_totals(store, &totals);
        }
    return NULL;
}

/* A guest that comes and goes, with pages that others have too. */
static void *come_and_go(void *unused)
{
    (void)unused;
    char path[128];
    uint8_t page[SP_PAGE_BYTES];
    uint64_t seed = 5;
    while (!atomic_load(&over)) {
        struct store_tally tally = {0};
        int fd = open_ram(9, path, sizeof path);
        for (uint32_t n = 0; n < PAGES; n += 3) {
            fill_page(&seed, page);
            CHECK(pwrite(fd, page, sizeof page, (off_t)n * SP_PAGE_BYTES) == sizeof page);
        }
        int number = store_attach(store, "passing", path, 1);
        CHECK(number >= 0 && store_evict(store, number, &all, 1, STORE_PATCH, UINT64_MAX, &tally) == 0);
        CHECK(store_forget(store, "passing") == 0);
        close(fd);
        unlink(path);
    }
    return NULL;
}

static void test_all_at_once(void)
{
    pthread_t guests[GUESTS], others[3];
    void *(*const work[3])(void *) = {sweep, account, come_and_go};
    begin();
    fill_all(1);
    for (unsigned n = 0; n < 3; n++)
        CHECK(pthread_create(&others[n], NULL, work[n], NULL) == 0);
    for (unsigned guest = 0; guest < GUESTS; guest++)
        CHECK(pthread_create(&guests[guest], NULL, live, (void *)(uintptr_t)guest) == 0);
    for (unsigned guest = 0; guest < GUESTS; guest++)
        pthread_join(guests[guest], NULL);
    atomic_store(&over, true);
    for (unsigned n = 0; n < 3; n++)
        pthread_join(others[n], NULL);
    for (unsigned guest = 0; guest < GUESTS; guest++)
        for (uint32_t page = 0; page < PAGES; page++)
            check_page(guest, page);
    end();
}

/* ---- a disk that takes its time to fail */

static void swap_out(void)
{
    struct store_swept swept;
    uint64_t changed;
    do {
        changed = 0;
        do {
            CHECK(store_sweep(store, 1000, 1, 1, &swept) == 0);
            changed += swept.packed + swept.swapped;
        } while (!swept.wrapped);
    } while (changed > 0);
}

static uint32_t page_that_is(bool swapped)
{
    uint8_t kinds[PAGES];
    CHECK(store_kinds(store, numbers[0], kinds, PAGES) == 0);
    for (uint32_t page = 0; page < PAGES; page++)
        if (swapped ? kinds[page] == PAGE_SWAPPED : kinds[page] == PAGE_PATCHED || kinds[page] == PAGE_WHOLE)
            return page;
    CHECK(!"there is such a page");
    return 0;
}

static void *fail_to_read(void *page)
{
    uint8_t content[SP_PAGE_BYTES];
    CHECK(store_read(store, numbers[0], *(uint32_t *)page, content) == EIO);
    set_disk(false, 0);
    return NULL;
}

/* What the disk has refused is not read once more with the lock held: whoever else needs the store goes on. */
static void test_failing_disk(void)
{
    pthread_t reader;
    begin();
    fill_all(2);
    for (unsigned guest = 0; guest < GUESTS; guest++)
        evict(guest, all);
    swap_out();
    uint32_t page = page_that_is(true), other = page_that_is(false);
    set_disk(true, 0);
    CHECK(pthread_create(&reader, NULL, fail_to_read, &page) == 0);
    await_held();
    check_page(0, other);
    /* This read fails; a second one would wait on. */
    set_disk(true, 1);
    pthread_mutex_lock(&disk.lock);
    while (disk.failures > 0)
        pthread_cond_wait(&disk.changed, &disk.lock);
    while (disk.hold && disk.held == 0)
        pthread_cond_wait(&disk.changed, &disk.lock);
    CHECK(disk.held == 0);
    pthread_mutex_unlock(&disk.lock);
    pthread_join(reader, NULL);
    check_page(0, other);
    check_page(0, page);
    end();
}

/* ---- the pager */

struct served {
    struct sp_pager *pager;
    uint8_t *memory;
    int pidfd;
};

static struct served serve(unsigned guest)
{
    struct uffd uffd = {.fd = -1};
    struct uffd_failure failure = {0};
    struct served served = {.pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0)};
    served.memory = mmap(NULL, PAGES * SP_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, files[guest], 0);
    CHECK(served.pidfd >= 0 && served.memory != MAP_FAILED && uffd_open(&uffd, &failure));
    struct pager_mapping mapping = {(uintptr_t)served.memory, PAGES * SP_PAGE_BYTES, 0};
    served.pager = pager_start(store, numbers[guest], uffd.fd, served.pidfd, &mapping, 1);
    CHECK(served.pager);
    return served;
}

static void stop(struct served *served)
{
    CHECK(pager_stop(served->pager, true) == 0);
    munmap(served->memory, PAGES * SP_PAGE_BYTES);
    close(served->pidfd);
}

static uint8_t *shown;

static void see_page(uint32_t page)
{
    CHECK(memcmp(shown + (size_t)page * SP_PAGE_BYTES, model[0][page], SP_PAGE_BYTES) == 0);
}

static void *look(void *data)
{
    uint64_t seed = (uintptr_t)data;
    for (unsigned round = 0; round < 4 * ROUNDS; round++)
        see_page((uint32_t)(next_random(&seed) % PAGES));
    return NULL;
}

static void *take_away(void *unused)
{
    (void)unused;
    uint64_t seed = 3;
    while (!atomic_load(&over)) {
        uint32_t first = (uint32_t)(next_random(&seed) % PAGES);
        evict(0, (struct sp_run){first, (uint32_t)(next_random(&seed) % (PAGES - first)) + 1});
    }
    return NULL;
}

static void test_pager(void)
{
    pthread_t readers[READERS], others[3];
    void *(*const work[3])(void *) = {sweep, account, take_away};
    begin();
    fill_all(3);
    struct served served = serve(0);
    shown = served.memory;
    for (unsigned n = 0; n < 3; n++)
        CHECK(pthread_create(&others[n], NULL, work[n], NULL) == 0);
    for (unsigned n = 0; n < READERS; n++)
        CHECK(pthread_create(&readers[n], NULL, look, (void *)(uintptr_t)(n + 1)) == 0);
    for (unsigned n = 0; n < READERS; n++)
        pthread_join(readers[n], NULL);
    atomic_store(&over, true);
    for (unsigned n = 0; n < 3; n++)
        pthread_join(others[n], NULL);
    stop(&served);
    end();
}

static void *see_one(void *page)
{
    see_page(*(uint32_t *)page);
    return NULL;
}

/* Who touches a page on a slow disk waits; all other pages of the same guest come. */
static void test_pager_slow_disk(void)
{
    pthread_t waiting;
    begin();
    fill_all(4);
    struct served served = serve(0);
    shown = served.memory;
    evict(0, all);
    swap_out();
    uint32_t page = page_that_is(true), other = page_that_is(false);
    set_disk(true, 0);
    CHECK(pthread_create(&waiting, NULL, see_one, &page) == 0);
    await_held();
    see_page(other);
    /* A failure is no answer: it is tried again, until there is one. */
    set_disk(true, 1);
    await_held();
    set_disk(false, 0);
    pthread_join(waiting, NULL);
    stop(&served);
    end();
}

static void flip_pool(void)
{
    char path[128];
    int pool = open(path_of(path, sizeof path, "pool"), O_RDWR | O_CLOEXEC);
    CHECK(pool >= 0);
    for (off_t at = 0; at < 2 * PAGES * SP_PAGE_BYTES; at += 64) {
        uint8_t byte;
        if (lseek(pool, at, SEEK_DATA) != at || pread(pool, &byte, 1, at) != 1)
            continue;
        byte ^= 0x10;
        CHECK(pwrite(pool, &byte, 1, at) == 1);
    }
    close(pool);
}

static uint64_t retries(struct sp_pager *pager)
{
    struct pager_stats stats;
    pager_read(pager, &stats);
    return stats.retries;
}

/* A damaged page is tried again and again, and given once it is whole; meanwhile others are answered at once. */
static void test_pager_damaged_page(void)
{
    enum { OTHERS = 100 };
    pthread_t waiting;
    begin();
    fill_all(5);
    struct served served = serve(0);
    shown = served.memory;
    evict(0, (struct sp_run){0, 1});
    uint8_t kind[PAGES];
    CHECK(store_kinds(store, numbers[0], kind, PAGES) == 0 && kind[0] == PAGE_WHOLE);
    flip_pool();
    uint32_t damaged = 0;
    CHECK(pthread_create(&waiting, NULL, see_one, &damaged) == 0);
    while (retries(served.pager) == 0)
        usleep(1000);
    uint64_t before = retries(served.pager);
    for (uint32_t n = 0; n < OTHERS; n++) {
        evict(0, (struct sp_run){1 + n, 1});
        see_page(1 + n);
    }
    /* It is tried every 20 ms. Were each answer to wait for that, there would be one for each. */
    CHECK(retries(served.pager) - before < OTHERS / 2);
    flip_pool();
    pthread_join(waiting, NULL);
    stop(&served);
    end();
}

int main(void)
{
    test_all_at_once();
    test_failing_disk();
    test_pager();
    test_pager_slow_disk();
    test_pager_damaged_page();
    return 0;
}
