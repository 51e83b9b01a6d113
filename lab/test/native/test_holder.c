/*
 * The holder's numbers of pages, against plain models: which page of the target has which number, which were known, and what is
 * copied to where. And its invariants: each ends the process before a byte is written outside.
 * build with: lab/native/holder/known.c lab/native/holder/space.c lab/native/holder/harvest.c lab/native/holder/copy.c lab/native/holder/control.c
 * build with: lab/native/holder/descriptors.c lab/native/holder/compare.c lab/native/holder/track.c lab/native/holder/scan-private.c lab/native/holder/scan-shared.c
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../native/holder/holder.h"
#include "../../../test/native/memory.h"

enum { PAGES = 4096, TARGET_PAGES = 2048 };

static uint64_t seed = 1;

static uint64_t random_below(uint64_t limit)
{
    return next_random(&seed) % limit;
}

/* The target's memory is a file: its addresses are offsets. */
static struct watch make(uint64_t pages)
{
    struct watch watch = {.pagemap = -1, .mem = memfd_create("target", MFD_CLOEXEC), .uffd = -1};
    CHECK(watch.mem >= 0 && ftruncate(watch.mem, (off_t)TARGET_PAGES * PAGE_BYTES) == 0);
    watch.mirror = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(watch.mirror != MAP_FAILED);
    watch.space.page_limit = pages;
    known_init(&watch.known, pages);
    return watch;
}

static void drop(struct watch *watch)
{
    close(watch->mem);
    munmap(watch->mirror, watch->space.page_limit * PAGE_BYTES);
    free(watch->space.numbered);
    free(watch->space.order);
    free(watch->space.news);
    free(watch->known.words);
    free(watch->finds);
    free(watch->runs);
}

static struct mapping mapping_of(uint64_t first, uint64_t count, bool of_file)
{
    return (struct mapping){
        .start = first * PAGE_BYTES,
        .end = (first + count) * PAGE_BYTES,
        .is_private = true,
        .of_file = of_file,
        .name = "test",
    };
}

static void test_known(void)
{
    static bool model[PAGES];
    struct known known;
    known_init(&known, PAGES);
    for (int round = 0; round < 2000; round++) {
        uint64_t page = random_below(PAGES), count = 1 + random_below(random_below(2) ? 200 : 3);
        bool value = random_below(2);
        if (count > PAGES - page)
            count = PAGES - page;
        known_set(&known, page, count, value);
        memset(model + page, value, count);
        uint64_t from = random_below(PAGES), end = from + random_below(PAGES - from + 1), next = from;
        value = random_below(2);
        while (next < end && model[next] != value)
            next++;
        CHECK(known_next(&known, from, end, value) == next);
        CHECK(known_has(&known, from) == model[from]);
    }
    free(known.words);
}

/* A page of the target's keeps its number, and no two have the same; mappings come and go, in any order. */
static void test_numbers(void)
{
    static uint64_t number[TARGET_PAGES];
    static bool taken[PAGES];
    memset(number, 0xff, sizeof number);
    struct watch watch = make(PAGES);
    for (int round = 0; round < 500; round++) {
        uint64_t first = random_below(TARGET_PAGES), count = 1 + random_below(64);
        if (count > TARGET_PAGES - first)
            count = TARGET_PAGES - first;
        const struct mapping mapping = mapping_of(first, count, false);
        uint64_t start = first + random_below(count), end = start + 1 + random_below(first + count - start);
        CHECK(note(&watch, &mapping, start * PAGE_BYTES, end * PAGE_BYTES, FIND_WRITTEN));
        for (uint64_t page = start; page < end; page++)
            CHECK(space_find(&watch.space, page * PAGE_BYTES));
        for (uint64_t page = 0; page < TARGET_PAGES; page++) {
            const struct piece *piece = space_find(&watch.space, page * PAGE_BYTES);
            if (!piece) {
                CHECK(number[page] == UINT64_MAX);
                continue;
            }
            uint64_t now = piece_page(piece, page * PAGE_BYTES);
            if (number[page] == UINT64_MAX) {
                CHECK(!taken[now]);
                taken[now] = true;
                number[page] = now;
            }
            CHECK(number[page] == now);
        }
    }
    for (size_t i = 1; i < watch.space.count; i++)
        CHECK(space_piece(&watch.space, i - 1)->end <= space_piece(&watch.space, i)->start);
    drop(&watch);
}

static void test_limit(void)
{
    struct watch watch = make(16);
    const struct mapping fits = mapping_of(0, 16, false), more = mapping_of(100, 1, false);
    CHECK(note(&watch, &fits, 0, PAGE_BYTES, FIND_WRITTEN));
    CHECK(!note(&watch, &more, more.start, more.end, FIND_WRITTEN));
    CHECK(watch.space.page_count == 16);
    drop(&watch);
}

static void write_target(const struct watch *watch, uint64_t page, uint8_t byte)
{
    uint8_t bytes[PAGE_BYTES];
    memset(bytes, byte, sizeof bytes);
    CHECK(pwrite(watch->mem, bytes, sizeof bytes, (off_t)(page * PAGE_BYTES)) == sizeof bytes);
}

/* The mirror becomes what the target is; runs name each page that counts, once, in order. */
static void test_copies(void)
{
    static uint8_t model[TARGET_PAGES];
    struct watch watch = make(PAGES);
    const struct mapping mappings[] = {mapping_of(0, 700, false), mapping_of(700, 300, true), mapping_of(1100, 900, false)};
    for (int epoch = 1; epoch < 60; epoch++) {
        static bool wrote[TARGET_PAGES];
        memset(wrote, 0, sizeof wrote);
        watch.find_count = watch.run_count = 0;
        for (int n = 0; n < 40; n++) {
            const struct mapping *mapping = &mappings[random_below(3)];
            uint64_t first = mapping->start / PAGE_BYTES, end = mapping->end / PAGE_BYTES;
            uint64_t page = first + random_below(end - first), count = 1 + random_below(100);
            count = count > end - page ? end - page : count;
            for (uint64_t at = page; at < page + count; at++) {
                write_target(&watch, at, (uint8_t)epoch);
                model[at] = (uint8_t)epoch;
                wrote[at] = true;
            }
            CHECK(note(&watch, mapping, page * PAGE_BYTES, (page + count) * PAGE_BYTES,
                       random_below(2) ? FIND_WRITTEN : FIND_COMPARED));
        }
        CHECK(copy_written(&watch) == 0);
        size_t counted = 0, expected = 0;
        for (size_t i = 0; i < watch.run_count; i++) {
            CHECK(i == 0 || watch.runs[i - 1].first + watch.runs[i - 1].count < watch.runs[i].first);
            counted += watch.runs[i].count;
        }
        for (uint64_t page = 0; page < TARGET_PAGES; page++) {
            const struct piece *piece = space_find(&watch.space, page * PAGE_BYTES);
            expected += wrote[page];
            CHECK(piece || !wrote[page]);
            if (piece)
                CHECK(watch.mirror[piece_page(piece, page * PAGE_BYTES) * PAGE_BYTES] == model[page]);
        }
        CHECK(counted == expected);
    }
    /* What is given back reads as zeros, and counts where it was known. */
    watch.find_count = watch.run_count = 0;
    note_given_back(&watch, &mappings[0], 0, mappings[0].end);
    CHECK(watch.find_count > 0 && copy_written(&watch) == 0 && watch.run_count > 0);
    uint64_t first = watch.runs[0].first;
    CHECK(watch.mirror[first * PAGE_BYTES] == 0 && !known_has(&watch.known, first));
    drop(&watch);
}

static struct watch broken;
static struct mapping whole;

static void known_past_the_end(void) { known_set(&broken.known, PAGES - 1, 2, true); }
static void known_of_no_page(void) { known_has(&broken.known, PAGES); }
static void known_end_past_the_end(void) { known_next(&broken.known, 0, PAGES + 1, true); }
static void known_wraps(void) { known_set(&broken.known, 1, UINT64_MAX, true); }
static void note_outside(void) { note(&broken, &whole, 0, whole.end + PAGE_BYTES, FIND_WRITTEN); }
static void note_of_part(void) { note(&broken, &whole, 1, PAGE_BYTES, FIND_WRITTEN); }
static void given_back_outside(void) { note_given_back(&broken, &whole, 0, whole.end + PAGE_BYTES); }
static void position_of_none(void) { space_piece(&broken.space, broken.space.count); }
static void address_outside(void) { piece_page(broken.space.numbered, broken.space.numbered->end + PAGE_BYTES); }
static void page_without_number(void) { mirror_of(&broken, broken.space.page_count, 1); }
static void too_many_pages(void) { mirror_of(&broken, 1, broken.space.page_count); }

static void find_of_no_piece(void)
{
    broken.finds[0].first = (uint32_t)broken.space.page_count;
    copy_finds(&broken);
}

static void find_over_the_end(void)
{
    broken.finds[0].count = (uint32_t)broken.space.page_count + 1;
    copy_finds(&broken);
}

static void finds_of_any_order(void)
{
    broken.runs = grown(broken.runs, 0, &broken.run_room, sizeof *broken.runs);
    broken.runs[broken.run_count++] = (struct run){.first = 5, .count = 1};
    copy_finds(&broken);
}

static void message_too_long(void)
{
    struct message message = {.length = (size_t)UINT32_MAX + 5};
    message_send(&message);
}

static void array_too_small(void)
{
    size_t room = 64;
    grown(NULL, 65, &room, 1);
}

/* Says so, and ends before it goes on. */
static void expect_invariant(const char *name, void (*breach)(void))
{
    int said[2];
    char text[512] = "";
    CHECK(pipe(said) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(said[1], STDERR_FILENO);
        breach();
        _exit(0);
    }
    close(said[1]);
    size_t length = 0;
    for (ssize_t got; (got = read(said[0], text + length, sizeof text - 1 - length)) > 0;)
        length += (size_t)got;
    close(said[0]);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(text, "invariant failed"))
        return;
    fprintf(stderr, "%s is not held by an invariant: status %x, %s\n", name, status, text);
    abort();
}

static void test_invariants(void)
{
    broken = make(PAGES);
    whole = mapping_of(0, 32, false);
    CHECK(note(&broken, &whole, 0, PAGE_BYTES, FIND_WRITTEN) && broken.find_count == 1);
#define EXPECT(breach) expect_invariant(#breach, breach)
    EXPECT(known_past_the_end);
    EXPECT(known_of_no_page);
    EXPECT(known_end_past_the_end);
    EXPECT(known_wraps);
    EXPECT(note_outside);
    EXPECT(note_of_part);
    EXPECT(given_back_outside);
    EXPECT(position_of_none);
    EXPECT(address_outside);
    EXPECT(page_without_number);
    EXPECT(too_many_pages);
    EXPECT(find_of_no_piece);
    EXPECT(find_over_the_end);
    EXPECT(finds_of_any_order);
    EXPECT(message_too_long);
    EXPECT(array_too_small);
    drop(&broken);
}

int main(void)
{
    test_known();
    test_numbers();
    test_limit();
    test_copies();
    test_invariants();
    return 0;
}
