/*
 * The store against plain arrays: any order of writes, evictions, reads, drops, sweeps and restarts, and every page is
 * what it was. A guest is a file in memory; "the guest writes" is a write to it, after its page was brought back.
 * Also built with ThreadSanitizer (scripts/test-threads.sh). build with: -Wl,--wrap=pread
 */
#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../native/core/store.h"

enum { GUESTS = 3, PAGES = 150 };

static uint64_t seed;
static char directory[64], swap_path[96];
static uint8_t model[GUESTS][PAGES][SP_PAGE_BYTES];
static int numbers[GUESTS], files[GUESTS];
static struct sp_store *store;

static uint64_t below(uint64_t limit)
{
    return next_random(&seed) % limit;
}

static char *path_of(const char *leaf)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, leaf);
    return path;
}

static char *ram_path(unsigned guest)
{
    char leaf[16];
    snprintf(leaf, sizeof leaf, "ram-%u", guest);
    return path_of(leaf);
}

static char *name_of(unsigned guest)
{
    static char name[8];
    snprintf(name, sizeof name, "g%u", guest);
    return name;
}

static void open_store(bool with_swap)
{
    struct sp_store_options options = {directory, with_swap ? swap_path : NULL, 4096, 64, {2, 1, 1}};
    store = store_open(&options);
    CHECK(store);
    for (unsigned guest = 0; guest < GUESTS; guest++) {
        numbers[guest] = store_attach(store, name_of(guest), ram_path(guest), guest == 2 ? 7 : 1);
        CHECK(numbers[guest] >= 0);
    }
}

static void begin(uint64_t with_seed)
{
    seed = with_seed;
    snprintf(directory, sizeof directory, "/dev/shm/subpage-test-store-XXXXXX");
    CHECK(mkdtemp(directory));
    snprintf(swap_path, sizeof swap_path, "%s/swap", directory);
    memset(model, 0, sizeof model);
    for (unsigned guest = 0; guest < GUESTS; guest++) {
        files[guest] = open(ram_path(guest), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        CHECK(files[guest] >= 0 && ftruncate(files[guest], PAGES * SP_PAGE_BYTES) == 0);
    }
    open_store(true);
}

static void end(void)
{
    store_close(store);
    for (unsigned guest = 0; guest < GUESTS; guest++)
        close(files[guest]);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", directory);
    CHECK(system(command) == 0);
}

static struct sp_run some_run(void)
{
    uint32_t first = (uint32_t)below(PAGES);
    return (struct sp_run){first, (uint32_t)below(PAGES - first) + 1};
}

/* A page as guests have them: zero, filled, from a small stock (identical), slightly changed (similar), noise. */
static void new_content(uint8_t *page)
{
    uint64_t stock = below(6) * 0x9e3779b97f4a7c15u + 1;
    switch (below(6)) {
    case 0:
        memset(page, below(2) ? 0 : (int)below(256), SP_PAGE_BYTES);
        break;
    case 1:
        for (unsigned i = 0; i < SP_PAGE_BYTES; i += 8)
            memcpy(page + i, &stock, 8);
        break;
    case 2:
    case 3:
    case 4:
        for (unsigned i = 0; i < SP_PAGE_BYTES; i += 8) {
            uint64_t word = next_random(&stock) & (stock & 256 ? ~UINT64_C(0) : UINT64_C(0xffff));
            memcpy(page + i, &word, 8);
        }
        for (uint64_t i = below(3); i > 0; i--)
            page[below(SP_PAGE_BYTES)] ^= 1;
        break;
    default:
        for (unsigned i = 0; i < SP_PAGE_BYTES; i++)
            page[i] = (uint8_t)next_random(&seed);
    }
}

static void write_page(unsigned guest, uint32_t page, bool whole)
{
    struct sp_run run = {page, 1};
    uint64_t moved;
    if (whole) {
        CHECK(store_drop(store, numbers[guest], &run, 1) == 0);
        new_content(model[guest][page]);
    } else {
        CHECK(store_fetch(store, numbers[guest], &run, 1, 0, &moved) == 0);
        model[guest][page][below(SP_PAGE_BYTES)] ^= 0x42;
    }
    CHECK(pwrite(files[guest], model[guest][page], SP_PAGE_BYTES, (off_t)page * SP_PAGE_BYTES) == SP_PAGE_BYTES);
}

static void check_page(unsigned guest, uint32_t page)
{
    uint8_t content[SP_PAGE_BYTES];
    CHECK(store_read(store, numbers[guest], page, content) == 0);
    CHECK(memcmp(content, model[guest][page], SP_PAGE_BYTES) == 0);
}

static void check_all(void)
{
    for (unsigned guest = 0; guest < GUESTS; guest++)
        for (uint32_t page = 0; page < PAGES; page++)
            check_page(guest, page);
}

/* What the store says of itself adds up with the file. */
static void check_accounts(unsigned guest)
{
    struct store_share share;
    CHECK(store_share_of(store, numbers[guest], &share) == 0);
    uint64_t stored = share.filled + share.shared + share.patched + share.packed + share.swapped + share.whole;
    CHECK(share.pages == PAGES && stored + share.resident + share.holes == PAGES);
    CHECK(share.bytes <= stored * SP_PAGE_BYTES);
    /* The map says the same of the whole, and of each part what its pages say. */
    enum { CELL_PAGES = 7, CELLS = (PAGES - 1) / CELL_PAGES + 1 };
    uint32_t cells[CELLS][HELD_WAYS];
    uint64_t held[HELD_WAYS] = {0};
    uint8_t kinds[PAGES];
    CHECK(store_map(store, numbers[guest], CELL_PAGES, cells, CELLS) == 0);
    CHECK(store_kinds(store, numbers[guest], kinds, PAGES) == 0);
    for (uint32_t cell = 0; cell < CELLS; cell++) {
        uint32_t in_cell = 0, swapped = 0;
        for (uint32_t page = cell * CELL_PAGES; page < PAGES && page < (cell + 1) * CELL_PAGES; page++) {
            in_cell += kinds[page] != PAGE_RESIDENT;
            swapped += kinds[page] == PAGE_SWAPPED;
        }
        CHECK(cells[cell][HELD_SWAPPED] == swapped);
        for (unsigned way = 0; way < HELD_WAYS; way++) {
            held[way] += cells[cell][way];
            in_cell -= cells[cell][way];
        }
        CHECK(in_cell == 0);
    }
    const uint64_t said[] = {share.filled, share.shared, share.patched, share.packed, share.swapped, share.whole};
    CHECK(memcmp(held, said, sizeof said) == 0);
    CHECK(store_map(store, numbers[guest], CELL_PAGES, cells, CELLS - 1) == EINVAL);
    CHECK(store_map(store, numbers[guest], 0, cells, CELLS) == EINVAL);
}

static void step(void)
{
    unsigned guest = (unsigned)below(GUESTS);
    struct sp_run run = some_run();
    struct store_tally tally = {0};
    struct store_swept swept;
    uint64_t moved;
    switch (below(10)) {
    case 0:
    case 1:
    case 2:
        for (uint32_t page = run.first; page < run.first + run.count && page < run.first + 20; page++)
            write_page(guest, page, below(2));
        break;
    case 3:
    case 4:
    case 5:
        CHECK(store_evict(store, numbers[guest], &run, 1, (unsigned)below(4), 1 + below(PAGES), &tally) == 0);
        break;
    case 6:
        CHECK(store_fetch(store, numbers[guest], &run, 1, 0, &moved) == 0 && moved <= run.count);
        break;
    case 7:
        CHECK(store_sweep(store, below(400), (unsigned)below(3), (unsigned)below(5), &swept) == 0);
        break;
    case 8:
        check_accounts(guest);
        break;
    default:
        store_close(store);
        open_store(true);
    }
    check_page(guest, run.first);
}

/* Writes of the guest's own find the page in the file. */
static void check_files(void)
{
    static const struct sp_run all = {0, PAGES};
    uint8_t content[SP_PAGE_BYTES];
    uint64_t moved;
    for (unsigned guest = 0; guest < GUESTS; guest++) {
        CHECK(store_fetch(store, numbers[guest], &all, 1, 0, &moved) == 0);
        for (uint32_t page = 0; page < PAGES; page++) {
            CHECK(pread(files[guest], content, SP_PAGE_BYTES, (off_t)page * SP_PAGE_BYTES) == SP_PAGE_BYTES);
            CHECK(memcmp(content, model[guest][page], SP_PAGE_BYTES) == 0);
        }
    }
    /* With everything back, nothing is left: no object, no piece of the pool, no page of the swap file. */
    struct store_totals totals;
    store_totals(store, &totals);
    CHECK(totals.objects == 0 && totals.pool_bytes == 0 && totals.swap_bytes == 0);
}

static void test_any_order(uint64_t with_seed)
{
    begin(with_seed);
    for (unsigned i = 0; i < 250; i++)
        step();
    check_all();
    check_files();
    end();
}

static void fill_from(unsigned guest)
{
    for (; guest < GUESTS; guest++)
        for (uint32_t page = 0; page < PAGES; page++)
            write_page(guest, page, true);
}

static struct store_tally evict_all(void)
{
    static const struct sp_run all = {0, PAGES};
    struct store_tally tally = {0};
    for (unsigned guest = 0; guest < GUESTS; guest++)
        CHECK(store_evict(store, numbers[guest], &all, 1, STORE_PATCH, UINT64_MAX, &tally) == 0);
    return tally;
}

/* What is packed in a first round goes in the next ones. */
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

static void test_saves(void)
{
    begin(3);
    fill_from(0);
    struct store_tally tally = evict_all();
    CHECK(tally.filled > 50 && tally.shared > 20 && tally.patched > 20 && tally.whole > 20);
    for (unsigned guest = 0; guest < GUESTS; guest++) {
        struct stat status;
        CHECK(fstat(files[guest], &status) == 0 && status.st_blocks == 0);
        check_accounts(guest);
    }
    struct store_totals before, after;
    struct store_swept swept = {0};
    store_totals(store, &before);
    while (!swept.wrapped)
        CHECK(store_sweep(store, 1000, 1, 100, &swept) == 0);
    CHECK(swept.packed > 5);
    store_totals(store, &after);
    CHECK(after.pool_bytes <= before.pool_bytes && after.objects == before.objects && after.swap_bytes == 0);
    swap_out();
    store_totals(store, &after);
    CHECK(after.swap_bytes > 0 && after.pool_bytes < before.pool_bytes);
    check_all();
    store_close(store);
    open_store(true);
    check_all();
    check_files();
    end();
}

/* What would not become smaller stays in its file, and whoever comes later finds no whole pages made for it. */
static void test_smaller(void)
{
    static const struct sp_run all = {0, PAGES};
    struct store_tally tally = {0};
    struct store_totals totals;
    begin(7);
    fill_from(0);
    CHECK(store_evict(store, numbers[0], &all, 1, STORE_PATCH | STORE_SMALLER, UINT64_MAX, &tally) == 0);
    store_totals(store, &totals);
    CHECK(tally.filled > 10 && tally.left > 10 && tally.whole == 0 && totals.pool_bytes == 0);
    check_accounts(0);
    CHECK(store_evict(store, numbers[1], &all, 1, STORE_PATCH, UINT64_MAX, &tally) == 0);
    tally = (struct store_tally){0};
    CHECK(store_evict(store, numbers[0], &all, 1, STORE_PATCH | STORE_SMALLER, UINT64_MAX, &tally) == 0);
    CHECK(tally.shared > 0 && tally.patched > 0 && tally.whole == 0);
    check_all();
    check_files();
    end();
}

static void sweep_rounds(unsigned rounds, unsigned age_pack, uint64_t *joined)
{
    struct store_swept swept;
    *joined = 0;
    while (rounds > 0) {
        CHECK(store_sweep(store, 100, age_pack, 100, &swept) == 0);
        *joined += swept.joined;
        rounds -= swept.wrapped;
    }
}

/*
 * Indexes for 64 pages, and 300 different ones: what an eviction did not find the sweep does, part by part. The second
 * guest has the pages of the first, the same or each with a byte changed.
 */
static void test_parts(bool change)
{
    struct store_totals totals;
    struct store_share first, second;
    uint64_t joined;
    begin(11);
    for (unsigned page = 0; page < PAGES; page++) {
        uint64_t stock = page + 1000;
        for (unsigned i = 0; i < SP_PAGE_BYTES; i += 8) {
            uint64_t word = next_random(&stock);
            memcpy(model[0][page] + i, &word, 8);
        }
        memcpy(model[1][page], model[0][page], SP_PAGE_BYTES);
        model[1][page][7] ^= change;
        memcpy(model[2][page], model[0][page], SP_PAGE_BYTES);
    }
    for (unsigned guest = 0; guest < GUESTS; guest++)
        CHECK(pwrite(files[guest], model[guest], sizeof model[guest], 0) == (ssize_t)sizeof model[guest]);
    evict_all();
    store_totals(store, &totals);
    CHECK(totals.objects > 2 * PAGES + PAGES / 4);
    sweep_rounds(2 * 8, 100, &joined);
    store_totals(store, &totals);
    CHECK(store_share_of(store, numbers[0], &first) == 0 && store_share_of(store, numbers[1], &second) == 0);
    /* The third guest is in a domain of its own, and takes part in nothing. */
    if (change) {
        CHECK(totals.objects == 3 * PAGES && first.patched + second.patched >= PAGES - 2);
    } else {
        CHECK(joined > PAGES / 4 && totals.objects == 2 * PAGES && first.shared == PAGES && second.shared == PAGES);
    }
    check_all();
    store_close(store);
    open_store(true);
    check_all();
    check_files();
    end();
}

/* Domains never share: the third guest is in one of its own. */
static void test_domains(void)
{
    begin(4);
    for (unsigned guest = 0; guest < GUESTS; guest++) {
        uint64_t stock = 99;
        for (unsigned i = 0; i < SP_PAGE_BYTES; i++)
            model[guest][0][i] = (uint8_t)next_random(&stock);
        CHECK(pwrite(files[guest], model[guest][0], SP_PAGE_BYTES, 0) == SP_PAGE_BYTES);
    }
    struct store_tally tally = evict_all();
    CHECK(tally.whole == 2 && tally.shared == 1);
    check_all();
    end();
}

/* A wrong byte in the pool or in the swap file is found, and not given out. */
static void test_damage(void)
{
    begin(5);
    fill_from(0);
    evict_all();
    int pool = open(path_of("pool"), O_RDWR | O_CLOEXEC);
    struct stat status;
    CHECK(pool >= 0 && fstat(pool, &status) == 0);
    for (off_t at = 0; at < 400 * 4096; at += 512) {
        uint8_t byte;
        if (lseek(pool, at, SEEK_DATA) != at)
            continue;
        CHECK(pread(pool, &byte, 1, at) == 1);
        byte ^= 0x10;
        CHECK(pwrite(pool, &byte, 1, at) == 1);
    }
    close(pool);
    unsigned refused = 0;
    for (unsigned guest = 0; guest < GUESTS; guest++)
        for (uint32_t page = 0; page < PAGES; page++) {
            uint8_t content[SP_PAGE_BYTES];
            int error = store_read(store, numbers[guest], page, content);
            CHECK(error == 0 || error == EBADMSG);
            CHECK(error || memcmp(content, model[guest][page], SP_PAGE_BYTES) == 0);
            refused += error != 0;
        }
    CHECK(refused > 50);
    end();
}

/* Writes one word of a file of the store, and returns what was there. */
static uint64_t bend(const char *leaf, off_t at, uint64_t word)
{
    uint64_t before;
    int file = open(path_of(leaf), O_RDWR | O_CLOEXEC);
    CHECK(file >= 0 && pread(file, &before, 8, at) == 8 && pwrite(file, &word, 8, at) == 8);
    close(file);
    return before;
}

static void run_command(const char *form)
{
    char command[256];
    snprintf(command, sizeof command, form, directory, directory);
    CHECK(system(command) == 0);
}

/*
 * Wrong words in the books that a restart takes up: the store is refused, or what it gives out is what its hash says. An
 * object has 32 bytes: place, hash, refs and patches, reference and the rest.
 */
static void test_damaged_books(void)
{
    struct sp_store_options options = {directory, swap_path, 4096, 64, {2, 1, 1}};
    begin(6);
    fill_from(0);
    evict_all();
    store_close(store);
    unsigned refused = 0, taken = 0;
    run_command("cp -a %s %s.whole");
    for (unsigned round = 0; round < 160; round++) {
        /* A store that was taken up has changed its files. */
        run_command("cp -a %s.whole/. %s/");
        bool of_slots = round % 4 == 3;
        const char *leaf = of_slots ? "slots-g0" : "objects";
        unsigned field = (unsigned)below(2) ? 24 : 0;
        off_t at = of_slots ? (off_t)below(PAGES) * 8 : (off_t)below(120) * 32 + field;
        uint64_t before = bend(leaf, at, 0), word = before;
        if (round % 4 == 0)
            word = (before & ~(UINT64_C(7) << 61)) | below(8) << 61;
        else if (round % 4 == 1)
            word = (before & ~(UINT64_C(0x1fff) << 48)) | below(8192) << 48;
        else
            word ^= UINT64_C(1) << below(64);
        bend(leaf, at, word);
        store = store_open(&options);
        refused += store == NULL;
        taken += store != NULL;
        if (store) {
            for (unsigned guest = 0; guest < GUESTS; guest++) {
                numbers[guest] = store_attach(store, name_of(guest), ram_path(guest), guest == 2 ? 7 : 1);
                CHECK(numbers[guest] >= 0);
                for (uint32_t page = 0; page < PAGES; page++) {
                    uint8_t content[SP_PAGE_BYTES];
                    (void)store_read(store, numbers[guest], page, content);
                }
            }
            store_close(store);
        }
    }
    CHECK(refused > 20 && taken > 20);
    run_command("cp -a %s.whole/. %s/");
    /* A patch of an object that no file has room for. */
    uint64_t place = bend("objects", 0, UINT64_C(3) << 61 | UINT64_C(100) << 48), rest = bend("objects", 24, UINT32_MAX - 1);
    CHECK(store_open(&options) == NULL && errno == EBADMSG);
    bend("objects", 0, place);
    bend("objects", 24, rest);
    open_store(true);
    run_command("rm -r %s.whole");
    end();
}

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool hold;
    unsigned held; /* readers that wait */
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static bool is_swap(int fd)
{
    struct stat one, other;
    return fstat(fd, &one) == 0 && stat(swap_path, &other) == 0 && one.st_ino == other.st_ino;
}

/* In place of pread: the disk may take its time. */
ssize_t __real_pread(int fd, void *into, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *into, size_t bytes, off_t offset)
{
    pthread_mutex_lock(&disk.lock);
    if (disk.hold && is_swap(fd)) {
        disk.held++;
        pthread_cond_broadcast(&disk.changed);
        while (disk.hold)
            pthread_cond_wait(&disk.changed, &disk.lock);
        disk.held--;
    }
    pthread_mutex_unlock(&disk.lock);
    return __real_pread(fd, into, bytes, offset);
}

static void *read_swapped_page(void *page)
{
    uint8_t content[SP_PAGE_BYTES];
    CHECK(store_read(store, numbers[0], *(uint32_t *)page, content) == 0);
    CHECK(memcmp(content, model[0][*(uint32_t *)page], SP_PAGE_BYTES) == 0);
    return NULL;
}

/* While one waits for the disk, all others go on, even when they forget what is being read, or write to its place. */
static void test_slow_disk(void)
{
    static const struct sp_run all = {0, PAGES};
    uint8_t kinds[PAGES], content[SP_PAGE_BYTES];
    uint64_t moved;
    begin(9);
    fill_from(0);
    evict_all();
    swap_out();
    CHECK(store_kinds(store, numbers[0], kinds, PAGES) == 0);
    uint32_t page = 0, other = 0;
    while (page < PAGES && kinds[page] != PAGE_SWAPPED)
        page++;
    while (other < PAGES && (kinds[other] == PAGE_SWAPPED || kinds[other] == PAGE_RESIDENT))
        other++;
    CHECK(page < PAGES && other < PAGES);
    pthread_t reader;
    disk.hold = true;
    CHECK(pthread_create(&reader, NULL, read_swapped_page, &page) == 0);
    pthread_mutex_lock(&disk.lock);
    while (disk.held == 0)
        pthread_cond_wait(&disk.changed, &disk.lock);
    pthread_mutex_unlock(&disk.lock);
    CHECK(store_read(store, numbers[0], other, content) == 0);
    CHECK(memcmp(content, model[0][other], SP_PAGE_BYTES) == 0);
    /* What is being read is forgotten, and other pages take its place in the swap file. */
    CHECK(pwrite(files[0], model[0][page], SP_PAGE_BYTES, (off_t)page * SP_PAGE_BYTES) == SP_PAGE_BYTES);
    CHECK(store_drop(store, numbers[0], &(struct sp_run){page, 1}, 1) == 0);
    for (unsigned guest = 1; guest < GUESTS; guest++)
        CHECK(store_drop(store, numbers[guest], &all, 1) == 0);
    fill_from(1);
    evict_all();
    swap_out();
    pthread_mutex_lock(&disk.lock);
    disk.hold = false;
    pthread_cond_broadcast(&disk.changed);
    pthread_mutex_unlock(&disk.lock);
    pthread_join(reader, NULL);
    check_all();
    CHECK(store_fetch(store, numbers[0], &all, 1, FETCH_URGENT, &moved) == 0 && moved > 0);
    check_all();
    end();
}

/* A move that was cut short: the page is in the file and in its slot. The file wins, and nothing leaks. */
static void test_cut_short(void)
{
    begin(6);
    fill_from(0);
    evict_all();
    for (uint32_t page = 0; page < PAGES; page += 3) {
        new_content(model[0][page]);
        CHECK(pwrite(files[0], model[0][page], SP_PAGE_BYTES, (off_t)page * SP_PAGE_BYTES) == SP_PAGE_BYTES);
    }
    store_close(store);
    open_store(true);
    check_all();
    check_files();
    end();
}

static void test_refusals(void)
{
    begin(7);
    struct sp_run outside = {PAGES - 1, 2};
    struct store_tally tally = {0};
    uint64_t moved;
    CHECK(store_evict(store, numbers[0], &outside, 1, 0, 1, &tally) == EINVAL);
    CHECK(store_fetch(store, numbers[0], &outside, 1, 0, &moved) == EINVAL);
    CHECK(store_drop(store, numbers[0], &outside, 1) == EINVAL);
    CHECK(store_fetch(store, 999, &outside, 1, 0, &moved) == EINVAL && store_fetch(store, -1, &outside, 1, 0, &moved) == EINVAL);
    CHECK(store_attach(store, "g0", ram_path(0), 1) == -1 && errno == EEXIST);
    CHECK(store_attach(store, "../x", ram_path(0), 1) == -1 && errno == EINVAL);
    CHECK(store_forget(store, "nobody") == ENOENT);
    CHECK(store_forget(store, "g0") == 0);
    CHECK(ftruncate(files[1], (PAGES + 1) * SP_PAGE_BYTES) == 0);
    store_close(store);
    struct sp_store_options options = {directory, swap_path, 4096, 64, {2, 1, 1}};
    store = store_open(&options);
    CHECK(store && store_attach(store, "g1", ram_path(1), 1) == -1 && errno == ERANGE);
    end();
}

/* Full: what does not fit stays in its file. */
static void test_full(void)
{
    begin(8);
    store_close(store);
    for (unsigned guest = 0; guest < GUESTS; guest++) {
        char leaf[16];
        snprintf(leaf, sizeof leaf, "slots-g%u", guest);
        unlink(path_of(leaf));
    }
    unlink(path_of("pool"));
    unlink(path_of("objects"));
    struct sp_store_options options = {directory, NULL, 40, 64, {2, 1, 1}};
    store = store_open(&options);
    CHECK(store);
    for (unsigned guest = 0; guest < GUESTS; guest++)
        CHECK((numbers[guest] = store_attach(store, name_of(guest), ram_path(guest), 1)) >= 0);
    fill_from(0);
    static const struct sp_run all = {0, PAGES};
    struct store_tally tally = {0};
    CHECK(store_evict(store, numbers[0], &all, 1, 0, UINT64_MAX, &tally) == ENOSPC);
    CHECK(tally.failed > 0);
    check_all();
    end();
}

int main(void)
{
    for (uint64_t with_seed = 1; with_seed <= 12; with_seed++)
        test_any_order(with_seed * 7919);
    test_parts(false);
    test_parts(true);
    test_saves();
    test_smaller();
    test_domains();
    test_damage();
    test_damaged_books();
    test_slow_disk();
    test_cut_short();
    test_refusals();
    test_full();
    return 0;
}
