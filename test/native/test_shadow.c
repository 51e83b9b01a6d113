/*
 * Shadows that are not a copy of everything, under the sanitizers: hashes of every grain, a cache with pages held and not
 * held, blocks larger than a line; each on every path, the paths against each other, outputs of every size in guarded
 * buffers, a guest that writes during capture, and what is refused.
 */
#include <pthread.h>

#include "memory.h"

enum { PAGES = 24, BYTES = PAGES * SP_PAGE_BYTES, SLOTS = 9, ROOM = 1 << 20 };

static const char *const paths[] = {"scalar", "avx2"};
static const unsigned grains[] = {1, 2, 4, 16, 64}; /* lines in a block */
enum { GRAINS = sizeof grains / sizeof *grains };
static const struct sp_run everything[] = {{0, PAGES}};

static uint8_t *ram, *image;

static struct sp_capture job_of(struct sp_shadow shadow, enum sp_codec codec, bool whole)
{
    return (struct sp_capture){.ram = ram, .shadow = shadow, .pages = PAGES, .runs = everything, .run_count = 1,
                               .codec = codec, .whole = whole};
}

/* Captures into outputs that end at a guard page and applies each to the image. Returns the bytes of all. */
static size_t transfer(struct sp_capture job, size_t capacity)
{
    size_t total = 0;
    do {
        struct sp_delta_summary summary;
        job.out = guarded(capacity);
        job.capacity = capacity;
        CHECK(sp_capture_run(&job));
        uint8_t *delta = guarded(job.bytes);
        memcpy(delta, job.out, job.bytes);
        CHECK(sp_delta_apply(image, PAGES, delta, job.bytes, &summary) == NULL);
        CHECK(summary.whole == job.whole);
        total += job.bytes;
        free_guarded(delta, job.bytes);
        free_guarded(job.out, capacity);
    } while (job.run < job.run_count);
    return total;
}

static size_t table_bytes(unsigned block_lines)
{
    return (size_t)PAGES * (SP_LINES_PER_PAGE / block_lines) * SP_BLOCK_HASH_BYTES;
}

static void hashes(uint64_t seed)
{
    unsigned block_lines = grains[seed % GRAINS];
    uint8_t *table = guarded(table_bytes(block_lines));
    struct sp_shadow shadow = {.memory = table, .hashed = true, .seed = seed * 77, .block_lines = block_lines};
    enum sp_codec codec = (enum sp_codec)(next_random(&seed) % SP_CODEC_COUNT);
    memset(table, 0, table_bytes(block_lines));
    memset(image, 0, BYTES);
    memset(ram, 0, BYTES);
    /* An empty table stands for zeros. */
    CHECK(sp_shadow_difference(ram, PAGES, &shadow) == -1);
    scribble(ram, BYTES, 40, &seed);
    for (int round = 0; round < 4; round++) {
        bool whole = round == 2;
        if (whole) {
            /* A failed checkpoint: neither the image nor the table is what it should be. */
            scribble(image, BYTES, 20, &seed);
            table[next_random(&seed) % table_bytes(block_lines)] ^= 1;
        }
        transfer(job_of(shadow, codec, whole), SP_DELTA_MIN_CAPACITY + next_random(&seed) % 30000);
        CHECK(memcmp(image, ram, BYTES) == 0);
        CHECK(sp_shadow_difference(ram, PAGES, &shadow) == -1);
        CHECK(transfer(job_of(shadow, codec, false), ROOM) == SP_DELTA_HEADER_BYTES + SP_DELTA_PAD_BYTES);
        scribble(ram, BYTES, 10, &seed);
    }
    /* One byte changes one block, and is found. */
    sp_hashed_set(&shadow, 0, ram, PAGES);
    size_t at = next_random(&seed) % BYTES;
    ram[at] ^= 1 << (at % 8);
    unsigned line = (unsigned)(at / SP_LINE_BYTES);
    CHECK(sp_shadow_difference(ram, PAGES, &shadow) == (int64_t)(line - line % block_lines));
    struct sp_capture job = job_of(shadow, codec, false);
    job.out = guarded(ROOM);
    job.capacity = ROOM;
    CHECK(sp_capture_run(&job));
    CHECK(job.stats.changed_pages == 1 && job.stats.changed_lines == block_lines && job.out[3] == SP_CODEC_LINE);
    free_guarded(job.out, ROOM);
    free_guarded(table, table_bytes(block_lines));
}

/* Pages that the cache holds go as changes, others whole, and some of those are held from then on. */
static void cache(uint64_t seed)
{
    uint8_t *memory = guarded(SLOTS * SP_PAGE_BYTES);
    uint32_t slot_of[PAGES], page_of[SLOTS];
    struct sp_run held[PAGES], missed[PAGES];
    enum sp_codec codec = (enum sp_codec)(seed % SP_CODEC_COUNT);
    struct sp_shadow shadow = {.memory = memory, .slot_of = slot_of, .slots = SLOTS, .block_lines = grains[seed % GRAINS]};
    memset(slot_of, 0xff, sizeof slot_of);
    memset(page_of, 0xff, sizeof page_of);
    memset(ram, 0, BYTES);
    memset(image, 0, BYTES);
    for (int round = 0; round < 8; round++) {
        scribble(ram, BYTES, 30, &seed);
        struct sp_capture job = job_of(shadow, codec, false);
        size_t held_count = 0, missed_count = 0;
        for (uint32_t page = 0; page < PAGES; page++)
            if (slot_of[page] != SP_NO_SLOT)
                held[held_count++] = (struct sp_run){page, 1};
            else
                missed[missed_count++] = (struct sp_run){page, 1};
        job.runs = held;
        job.run_count = held_count;
        transfer(job, SP_DELTA_MIN_CAPACITY + next_random(&seed) % 30000);
        for (size_t i = 0; i < missed_count; i++) {
            uint32_t slot = (uint32_t)(next_random(&seed) % SLOTS);
            if (next_random(&seed) % 2)
                continue;
            if (page_of[slot] != SP_NO_SLOT)
                slot_of[page_of[slot]] = SP_NO_SLOT;
            page_of[slot] = missed[i].first;
            slot_of[missed[i].first] = slot;
        }
        job = job_of(shadow, codec, true);
        job.runs = missed;
        job.run_count = missed_count;
        transfer(job, SP_DELTA_MIN_CAPACITY + next_random(&seed) % 30000);
        CHECK(memcmp(image, ram, BYTES) == 0);
        CHECK(sp_shadow_difference(ram, PAGES, &shadow) == -1);
    }
    /* A held page that was written is found. */
    ram[page_of[0] == SP_NO_SLOT ? 0 : (size_t)page_of[0] * SP_PAGE_BYTES + 70] ^= 1;
    if (page_of[0] != SP_NO_SLOT)
        CHECK(sp_shadow_difference(ram, PAGES, &shadow) == (int64_t)page_of[0] * SP_LINES_PER_PAGE + 1);
    free_guarded(memory, SLOTS * SP_PAGE_BYTES);
}

/* Under `line` a block goes whole when one of its lines has changed, and only then. */
static void blocks(uint64_t seed)
{
    uint8_t *copy = guarded(BYTES), *first = guarded(ROOM), *second = guarded(ROOM);
    unsigned block_lines = grains[seed % GRAINS];
    struct sp_shadow shadow = {.memory = copy, .block_lines = block_lines};
    memset(ram, 0, BYTES);
    scribble(ram, BYTES, 60, &seed);
    memcpy(image, ram, BYTES);
    scribble(ram, BYTES, 30, &seed);
    uint64_t blocks_changed = 0;
    for (size_t block = 0; block < BYTES; block += block_lines * SP_LINE_BYTES)
        blocks_changed += memcmp(ram + block, image + block, block_lines * SP_LINE_BYTES) != 0;
    struct sp_capture a = job_of(shadow, SP_CODEC_LINE, false), b = a;
    a.out = first, b.out = second;
    a.capacity = b.capacity = ROOM;
    memcpy(copy, image, BYTES);
    CHECK(sp_cpu_select("scalar") && sp_capture_run(&a));
    CHECK(memcmp(copy, ram, BYTES) == 0);
    memcpy(copy, image, BYTES);
    CHECK(sp_cpu_select("best") && sp_capture_run(&b));
    CHECK(a.bytes == b.bytes && memcmp(first, second, a.bytes) == 0);
    CHECK(a.bytes <= blocks_changed * block_lines * SP_LINE_BYTES + PAGES * 14 + 24);
    struct sp_delta_summary summary;
    CHECK(sp_delta_apply(image, PAGES, first, a.bytes, &summary) == NULL);
    CHECK(memcmp(image, ram, BYTES) == 0);
    free_guarded(copy, BYTES);
    free_guarded(first, ROOM);
    free_guarded(second, ROOM);
}

static void *write_on(void *stop)
{
    uint64_t random = 99;
    while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED)) {
        uint64_t value = next_random(&random);
        __atomic_store_n((uint64_t *)(ram + value % (BYTES / 8) * 8), value & 0xff00ff, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* A guest that runs while its pages are hashed: what the image gets is what the hashes are of. */
static void concurrent_writer(void)
{
    uint8_t *table = guarded(table_bytes(4));
    struct sp_shadow shadow = {.memory = table, .hashed = true, .seed = 5, .block_lines = 4};
    bool stop = false;
    pthread_t writer;
    memset(image, 0, BYTES);
    CHECK(pthread_create(&writer, NULL, write_on, &stop) == 0);
    for (int round = 0; round < 200; round++) {
        transfer(job_of(shadow, SP_CODEC_MASKED, round % 8 == 0), ROOM);
        CHECK(sp_shadow_difference(image, PAGES, &shadow) == -1);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    CHECK(pthread_join(writer, NULL) == 0);
    free_guarded(table, table_bytes(4));
}

static void refusals(void)
{
    uint8_t *memory = guarded(SP_PAGE_BYTES), *out = guarded(ROOM);
    uint32_t slot_of[PAGES];
    memset(slot_of, 0xff, sizeof slot_of);
    struct sp_capture job = job_of((struct sp_shadow){.memory = memory, .slot_of = slot_of, .slots = 1, .block_lines = 1},
                                   SP_CODEC_MASKED, false);
    job.out = out;
    job.capacity = ROOM;
    CHECK(!sp_capture_run(&job)); /* not held, and not whole */
    slot_of[3] = 1; /* there is only slot 0 */
    CHECK(!sp_capture_run(&job));
    CHECK(sp_shadow_difference(ram, PAGES, &job.shadow) == -2);
    free_guarded(memory, SP_PAGE_BYTES);
    free_guarded(out, ROOM);
}

int main(void)
{
    ram = guarded(BYTES);
    image = guarded(BYTES);
    for (size_t path = 0; path < sizeof paths / sizeof *paths; path++) {
        if (!sp_cpu_select(paths[path])) {
            printf("test_shadow: this processor has no %s\n", paths[path]);
            continue;
        }
        for (uint64_t seed = 1; seed <= 20; seed++) {
            hashes(seed);
            cache(seed);
        }
        concurrent_writer();
        refusals();
    }
    for (uint64_t seed = 1; seed <= 20; seed++)
        blocks(seed);
    return 0;
}
