/* The sketch and its table: pages that share the looked-at lines are found, the bounds hold, what was taken out is gone. */
#include "memory.h"

#include "../../native/core/similar.h"

static const struct sp_sketch_shape paper = {2, 1, 1};
static uint64_t seed = 7;

static void fill(uint8_t *page)
{
    for (unsigned i = 0; i < SP_PAGE_BYTES; i++)
        page[i] = (uint8_t)next_random(&seed);
}

static struct sp_similar table_for(const struct sp_sketch_shape *shape, uint64_t pages)
{
    struct sp_similar table;
    size_t bytes = sp_similar_bytes(shape, pages);
    void *memory = aligned_alloc(64, bytes);
    CHECK(memory);
    sp_similar_init(&table, shape, memory, bytes);
    return table;
}

static void test_shapes(void)
{
    static const struct sp_sketch_shape good[] = {{2, 1, 1}, {4, 1, 1}, {8, 2, 8}, {1, 16, 1}};
    static const struct sp_sketch_shape bad[] = {{0, 1, 1}, {2, 0, 1}, {2, 1, 0}, {8, 3, 1}, {9, 1, 1}, {2, 1, 9}};
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(sp_sketch_shape_valid(&good[i]));
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!sp_sketch_shape_valid(&bad[i]));
}

/* Each line counts for at most one group, and k x s lines count in all. */
static void test_sketch_looks_at_its_lines(const struct sp_sketch_shape *shape)
{
    uint8_t page[SP_PAGE_BYTES];
    uint64_t before[SP_SKETCH_GROUPS_MAX], after[SP_SKETCH_GROUPS_MAX];
    unsigned lines_seen = 0;
    fill(page);
    sp_sketch(page, shape, before);
    for (unsigned line = 0; line < SP_LINES_PER_PAGE; line++) {
        page[line * SP_LINE_BYTES + 9] ^= 1;
        sp_sketch(page, shape, after);
        unsigned changed = 0;
        for (unsigned group = 0; group < shape->groups; group++)
            changed += before[group] != after[group];
        CHECK(changed <= 1);
        lines_seen += changed;
        page[line * SP_LINE_BYTES + 9] ^= 1;
    }
    CHECK(lines_seen == shape->groups * shape->lines);
}

static void test_finds_what_resembles(void)
{
    enum { PAGES = 200 };
    static uint8_t pages[PAGES][SP_PAGE_BYTES];
    struct sp_similar table = table_for(&paper, PAGES);
    uint64_t hashes[SP_SKETCH_GROUPS_MAX];
    uint32_t found[SP_SIMILAR_FOUND_MAX];
    for (unsigned i = 0; i < PAGES; i++) {
        fill(pages[i]);
        sp_sketch(pages[i], &paper, hashes);
        CHECK(sp_similar_find(&table, hashes, found) == 0);
        sp_similar_add(&table, hashes, i);
    }
    unsigned hits = 0;
    for (unsigned i = 0; i < PAGES; i++) {
        for (unsigned j = 0; j < 6; j++)
            pages[i][next_random(&seed) % SP_PAGE_BYTES] ^= 0x55;
        sp_sketch(pages[i], &paper, hashes);
        size_t count = sp_similar_find(&table, hashes, found);
        CHECK(count <= 1);
        hits += count == 1 && found[0] == i;
        if (count == 1)
            CHECK(found[0] == i);
    }
    CHECK(hits > PAGES / 2);
    free(table.entries);
}

static void test_keeps_c_newest(void)
{
    struct sp_sketch_shape shape = {1, 1, 3};
    struct sp_similar table = table_for(&shape, 64);
    uint64_t hash[1] = {0x123456789abcdef0u};
    uint32_t found[SP_SIMILAR_FOUND_MAX];
    for (uint32_t id = 0; id < 10; id++)
        sp_similar_add(&table, hash, id);
    CHECK(sp_similar_find(&table, hash, found) == 3);
    CHECK(found[0] == 9 && found[1] == 8 && found[2] == 7);
    sp_similar_add(&table, hash, 8); /* again: moves to the front, not twice */
    CHECK(sp_similar_find(&table, hash, found) == 3 && found[0] == 8 && found[1] == 9);
    sp_similar_remove(&table, hash, 9);
    CHECK(sp_similar_find(&table, hash, found) == 2 && found[0] == 8 && found[1] == 7);
    free(table.entries);
}

/* Far more than the table is for: it forgets, and never names what was not added under that hash. */
static void test_overflow_forgets(void)
{
    struct sp_similar table = table_for(&paper, 8);
    uint32_t found[SP_SIMILAR_FOUND_MAX];
    for (uint32_t id = 0; id < 1000; id++) {
        uint64_t hashes[2] = {id * 0x9e3779b97f4a7c15u, ~id * 0x9e3779b97f4a7c15u};
        sp_similar_add(&table, hashes, id);
        CHECK(sp_similar_find(&table, hashes, found) == 1 && found[0] == id);
    }
    free(table.entries);
}

static void test_zero_lines_are_not_indexed(void)
{
    static uint8_t zero[SP_PAGE_BYTES];
    struct sp_similar table = table_for(&paper, 8);
    uint64_t hashes[SP_SKETCH_GROUPS_MAX];
    uint32_t found[SP_SIMILAR_FOUND_MAX];
    sp_sketch(zero, &paper, hashes);
    CHECK(hashes[0] == 0 && hashes[1] == 0);
    sp_similar_add(&table, hashes, 1);
    CHECK(sp_similar_find(&table, hashes, found) == 0);
    free(table.entries);
}

int main(void)
{
    static const struct sp_sketch_shape wide = {4, 3, 2};
    test_shapes();
    test_sketch_looks_at_its_lines(&paper);
    test_sketch_looks_at_its_lines(&wide);
    test_finds_what_resembles();
    test_keeps_c_newest();
    test_overflow_forgets();
    test_zero_lines_are_not_indexed();
    return 0;
}
