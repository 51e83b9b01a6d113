/*
 * Capture and apply without Node, under the sanitizers: round trips of every codec on every path, paths against each
 * other, outputs of every size, guarded buffers, damaged deltas, a guest that writes during capture, and the count of
 * allocations (none).
 *
 * build with: -Wl,--wrap=malloc
 */
#include <pthread.h>

#include "memory.h"

enum { PAGES = 24, BYTES = PAGES * SP_PAGE_BYTES };

static const char *const paths[] = {"scalar", "avx2"};
static const struct sp_run everything[] = {{0, PAGES}};
/* Touches neither the first nor the last page; runs of one page and of several. */
static const struct sp_run scattered[] = {{1, 1}, {3, 2}, {7, 1}, {12, 6}, {22, 1}};

/* Counted by the linker's --wrap: calls that the core makes. */
static unsigned allocations;
void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
    allocations++;
    return __real_malloc(bytes);
}

static uint8_t *ram, *shadow, *image, *expected;

static struct sp_capture job_of(enum sp_codec codec, bool whole, uint8_t *out, size_t capacity)
{
    return (struct sp_capture){.ram = ram, .shadow = {.memory = shadow, .block_lines = 1}, .pages = PAGES, .runs = everything, .run_count = 1,
                               .codec = codec, .whole = whole, .out = out, .capacity = capacity};
}

/* Captures into outputs that end at a guard page, each as small as asked, and applies each to the image. */
static void transfer(struct sp_capture job, size_t capacity)
{
    struct sp_delta_summary summary;
    uint64_t looked_at = 0;
    do {
        job.out = guarded(capacity);
        job.capacity = capacity;
        CHECK(sp_capture_run(&job));
        CHECK(job.bytes <= capacity);
        looked_at += job.stats.pages;
        uint8_t *delta = guarded(job.bytes);
        memcpy(delta, job.out, job.bytes);
        CHECK(sp_delta_apply(image, PAGES, delta, job.bytes, &summary) == NULL);
        CHECK(summary.codec == job.codec && summary.whole == job.whole);
        free_guarded(delta, job.bytes);
        free_guarded(job.out, capacity);
    } while (job.run < job.run_count);
    uint64_t wanted = 0;
    for (size_t i = 0; i < job.run_count; i++)
        wanted += job.runs[i].count;
    CHECK(looked_at == wanted);
}

static void round_trips(uint64_t seed)
{
    for (int codec = 0; codec < SP_CODEC_COUNT; codec++) {
        for (int whole = 0; whole < 2; whole++) {
            bool all = next_random(&seed) % 2;
            memset(ram, 0, BYTES);
            scribble(ram, BYTES, 40, &seed);
            memcpy(shadow, ram, BYTES);
            memcpy(image, ram, BYTES);
            if (whole)
                scribble(image, BYTES, 40, &seed);
            scribble(ram, BYTES, 60, &seed);
            struct sp_capture job = job_of((enum sp_codec)codec, whole, NULL, 0);
            job.runs = all ? everything : scattered;
            job.run_count = all ? 1 : sizeof scattered / sizeof *scattered;
            memcpy(expected, image, BYTES);
            for (size_t i = 0; i < job.run_count; i++)
                memcpy(expected + job.runs[i].first * SP_PAGE_BYTES, ram + job.runs[i].first * SP_PAGE_BYTES,
                       (size_t)job.runs[i].count * SP_PAGE_BYTES);
            transfer(job, SP_DELTA_MIN_CAPACITY + next_random(&seed) % 30000);
            CHECK(memcmp(image, expected, BYTES) == 0);
            /* Everything is in the shadow now: nothing is left to send (but `page` sends what is dirty). */
            uint8_t *out = guarded(1 << 20);
            struct sp_capture again = job;
            again.out = out;
            again.capacity = 1 << 20;
            again.whole = false;
            CHECK(sp_capture_run(&again));
            CHECK(again.stats.changed_pages == 0);
            if (codec != SP_CODEC_PAGE)
                CHECK(again.bytes == SP_DELTA_HEADER_BYTES + SP_DELTA_PAD_BYTES);
            free_guarded(out, 1 << 20);
        }
    }
}

/* The same memory on two paths gives the same bytes and the same figures. */
static void paths_agree(uint64_t seed)
{
    enum { ROOM = 1 << 20 };
    uint8_t *before = guarded(BYTES), *first = guarded(ROOM), *second = guarded(ROOM);
    memset(before, 0, BYTES);
    scribble(before, BYTES, 60, &seed);
    memcpy(ram, before, BYTES);
    scribble(ram, BYTES, 80, &seed);
    for (int codec = 0; codec < SP_CODEC_COUNT; codec++) {
        for (int whole = 0; whole < 2; whole++) {
            struct sp_capture a = job_of((enum sp_codec)codec, whole, first, ROOM);
            struct sp_capture b = job_of((enum sp_codec)codec, whole, second, ROOM);
            memcpy(shadow, before, BYTES);
            CHECK(sp_cpu_select("scalar") && sp_capture_run(&a));
            memcpy(shadow, before, BYTES);
            CHECK(sp_cpu_select("best") && sp_capture_run(&b));
            CHECK(a.bytes == b.bytes && memcmp(first, second, a.bytes) == 0);
            CHECK(memcmp(&a.stats, &b.stats, sizeof a.stats) == 0);
        }
    }
    free_guarded(before, BYTES);
    free_guarded(first, ROOM);
    free_guarded(second, ROOM);
}

/* Whatever happens to a delta: it is refused and nothing is written, or only pages of the image are. */
static void damaged(uint64_t seed)
{
    enum { ROOM = 1 << 20 };
    uint8_t *out = guarded(ROOM);
    for (int codec = 0; codec < SP_CODEC_COUNT; codec++) {
        memset(shadow, 0, BYTES);
        memset(ram, 0, BYTES);
        scribble(ram, BYTES, 30, &seed);
        struct sp_capture job = job_of((enum sp_codec)codec, next_random(&seed) % 2, out, ROOM);
        CHECK(sp_capture_run(&job));
        for (int i = 0; i < 200; i++) {
            uint8_t *delta = guarded(job.bytes);
            memcpy(delta, out, job.bytes);
            for (uint64_t hits = 1 + next_random(&seed) % 3; hits > 0; hits--) {
                size_t range = next_random(&seed) % 2 ? job.bytes : (job.bytes < 64 ? job.bytes : 64);
                delta[next_random(&seed) % range] = (uint8_t)next_random(&seed);
            }
            struct sp_delta_summary summary;
            memcpy(expected, image, BYTES);
            const char *checked = sp_delta_check(delta, job.bytes, PAGES, &summary);
            CHECK(memcmp(expected, image, BYTES) == 0);
            const char *applied = sp_delta_apply(image, PAGES, delta, job.bytes, &summary);
            CHECK((checked == NULL) == (applied == NULL));
            if (applied)
                CHECK(memcmp(expected, image, BYTES) == 0);
            free_guarded(delta, job.bytes);
        }
    }
    free_guarded(out, ROOM);
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

/* A guest that runs while it is captured: what the image gets is what the shadow holds, whatever that is. */
static void concurrent_writer(void)
{
    enum { ROOM = 1 << 20 };
    uint8_t *out = guarded(ROOM);
    bool stop = false;
    pthread_t writer;
    CHECK(pthread_create(&writer, NULL, write_on, &stop) == 0);
    for (int round = 0; round < 400; round++) {
        struct sp_delta_summary summary;
        struct sp_capture job = job_of((enum sp_codec)(round % SP_CODEC_COUNT), round < 4, out, ROOM);
        CHECK(sp_cpu_select(round / 4 % 2 ? "scalar" : "best"));
        CHECK(sp_capture_run(&job));
        CHECK(sp_delta_apply(image, PAGES, out, job.bytes, &summary) == NULL);
        CHECK(memcmp(image, shadow, BYTES) == 0);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    CHECK(pthread_join(writer, NULL) == 0);
    free_guarded(out, ROOM);
}

static void refusals(void)
{
    uint8_t out[SP_DELTA_MIN_CAPACITY];
    struct sp_capture job = job_of(SP_CODEC_MASKED, false, out, sizeof out);
    const struct sp_run outside[] = {{PAGES - 1, 2}}, wrapping[] = {{UINT32_MAX, UINT32_MAX}},
                        backwards[] = {{5, 1}, {4, 1}};
    ram[5 * SP_PAGE_BYTES] ^= 1;
    ram[4 * SP_PAGE_BYTES] ^= 1;
    job.runs = outside;
    CHECK(!sp_capture_run(&job));
    job.runs = wrapping;
    CHECK(!sp_capture_run(&job));
    job.runs = backwards;
    job.run_count = 2;
    job.capacity = sizeof out;
    struct sp_capture roomy = job;
    roomy.out = guarded(1 << 16);
    roomy.capacity = 1 << 16;
    CHECK(!sp_capture_run(&roomy));
    free_guarded(roomy.out, 1 << 16);
    job.runs = everything;
    job.run_count = 1;
    job.capacity = SP_DELTA_MIN_CAPACITY - 1;
    CHECK(!sp_capture_run(&job));
}

int main(void)
{
    ram = guarded(BYTES);
    shadow = guarded(BYTES);
    image = guarded(BYTES);
    expected = guarded(BYTES);
    for (size_t path = 0; path < sizeof paths / sizeof *paths; path++) {
        if (!sp_cpu_select(paths[path])) {
            printf("test_delta: this processor has no %s\n", paths[path]);
            continue;
        }
        for (uint64_t seed = 1; seed <= 12; seed++) {
            round_trips(seed);
            damaged(seed);
        }
    }
    for (uint64_t seed = 1; seed <= 12; seed++)
        paths_agree(seed);
    concurrent_writer();
    refusals();
    CHECK(allocations == 0);
    return 0;
}
