/*
 * Reduce and restore under the sanitizers: a memory with much repetition is written to for many epochs, and what is
 * restored must give the image the same content, with every part and method, alone and together; both dictionaries agree;
 * damaged input is refused without touching anything it should not.
 */
#include "../../native/core/reduce.h"

#include "memory.h"

enum { PAGES = 96, BYTES = PAGES * SP_PAGE_BYTES, EPOCHS = 60, CAPACITY = 1 << 20 };

static uint64_t state = 88172645463325252ull;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 20) % below;
}

static uint8_t ram[BYTES], shadow[BYTES], image[BYTES], delta[CAPACITY];

static void fill_random(uint8_t *to, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = (uint8_t)draw(256);
}

/* Words, lines from a small stock, copies of pages and blocks, cleared pages, new content. */
static void write_epoch(uint8_t *dirty)
{
    static uint8_t stock[40][SP_LINE_BYTES];
    if (stock[0][0] == 0) {
        fill_random(stock[0], sizeof stock);
        stock[0][0] = 1;
    }
    for (unsigned i = 0; i < 24; i++) {
        unsigned page = draw(PAGES), other = draw(PAGES), line = draw(SP_LINES_PER_PAGE);
        uint8_t *to = ram + page * SP_PAGE_BYTES;
        dirty[page] = 1;
        switch (draw(8)) {
        case 0: memcpy(to + line * SP_LINE_BYTES + draw(56), &state, 8); break;
        case 1: memcpy(to + line * SP_LINE_BYTES, stock[draw(40)], SP_LINE_BYTES); break;
        case 2: memcpy(to, ram + other * SP_PAGE_BYTES, SP_PAGE_BYTES); break;
        case 3: memcpy(to + draw(4) * 1024, ram + other * SP_PAGE_BYTES + draw(4) * 1024, 1024); break;
        case 4: memset(to, 0, SP_PAGE_BYTES); break;
        case 5: memset(to + line * SP_LINE_BYTES, (int)draw(256), SP_LINE_BYTES); break;
        case 6: fill_random(to, SP_PAGE_BYTES); break;
        default:
            /* Resembles the other page, but for a few words. */
            memcpy(to, ram + other * SP_PAGE_BYTES, SP_PAGE_BYTES);
            for (unsigned n = 0; n < 5; n++)
                memcpy(to + draw(SP_PAGE_BYTES - 8), &state, 8);
        }
    }
}

static size_t capture(enum sp_codec codec, bool whole, const struct sp_run *runs, size_t run_count)
{
    struct sp_capture job = {.ram = ram, .shadow = {.memory = shadow, .block_lines = 1}, .pages = PAGES, .runs = runs, .run_count = run_count,
                             .codec = codec, .whole = whole, .out = delta, .capacity = CAPACITY};
    CHECK(sp_capture_run(&job));
    CHECK(job.run == run_count);
    return job.bytes;
}

/* Input and output end where they end: the sanitizer sees a read behind them. */
static const char *restore(struct sp_restorer *restorer, const uint8_t *data, size_t bytes, struct sp_vector *out)
{
    uint8_t *exact = malloc(bytes);
    memcpy(exact, data, bytes);
    const char *problem = sp_restore(restorer, exact, bytes, image, PAGES, 4 * BYTES, out);
    free(exact);
    return problem;
}

static struct sp_reduce_stats run_epochs(const struct sp_reduce_parts *parts, enum sp_codec codec, unsigned methods,
                                         bool with_memory, size_t *plain_bytes, size_t *sent_bytes)
{
    struct sp_reducer *reducer = sp_reducer_new(PAGES, parts);
    struct sp_restorer *restorer = sp_restorer_new();
    struct sp_vector out = {0}, restored = {0};
    struct sp_reduce_stats stats = {0};
    memset(ram, 0, BYTES);
    memset(shadow, 0, BYTES);
    memset(image, 0, BYTES);
    *plain_bytes = *sent_bytes = 0;
    for (unsigned epoch = 0; epoch < EPOCHS; epoch++) {
        uint8_t dirty[PAGES] = {0};
        struct sp_run runs[PAGES];
        size_t run_count = 0;
        struct sp_delta_summary summary;
        bool seeding = epoch == 0, whole = seeding || draw(10) == 0;
        write_epoch(dirty);
        for (unsigned page = 0; page < PAGES; page++)
            if (dirty[page] || seeding)
                runs[run_count++] = (struct sp_run){page, 1};
        size_t bytes = capture(codec, whole, runs, run_count);
        sp_reducer_begin(reducer, !seeding);
        CHECK(sp_reducer_include(reducer, runs, run_count));
        CHECK(sp_reduce(reducer, delta, bytes, with_memory ? shadow : NULL, methods == 3 ? draw(3) : methods, &out,
                        &stats) == NULL);
        *plain_bytes += bytes;
        *sent_bytes += out.bytes ? out.bytes : bytes;
        if (out.bytes == 0) {
            sp_restorer_learn(restorer, delta, bytes);
            CHECK(sp_delta_apply(image, PAGES, delta, bytes, &summary) == NULL);
        } else {
            CHECK(restore(restorer, out.data, out.bytes, &restored) == NULL);
            CHECK(sp_delta_apply(image, PAGES, restored.data, restored.bytes, &summary) == NULL);
            CHECK(summary.whole == whole);
        }
        CHECK(memcmp(image, ram, BYTES) == 0);
        if (parts->dictionary)
            CHECK(sp_reducer_digest(reducer) == sp_restorer_digest(restorer));
    }
    struct sp_run outside = {PAGES - 1, 2};
    CHECK(!sp_reducer_include(reducer, &outside, 1));
    sp_vector_free(&out);
    sp_vector_free(&restored);
    sp_reducer_free(reducer);
    sp_restorer_free(restorer);
    return stats;
}

static void each_part_pays(void)
{
    size_t plain, sent;
    struct sp_reduce_parts dictionary = {.dictionary = true, .block_bytes = 1024};
    struct sp_reduce_parts sharing = {.sharing = true, .block_bytes = 1024};
    struct sp_reduce_parts similar = {.similar = true, .block_bytes = 1024};
    struct sp_reduce_parts nothing = {.block_bytes = 1024};
    CHECK(run_epochs(&dictionary, SP_CODEC_MASKED, SP_SQUEEZE_NONE, true, &plain, &sent).dictionary_lines > 500);
    CHECK(sent < plain * 9 / 10);
    CHECK(run_epochs(&sharing, SP_CODEC_MASKED, SP_SQUEEZE_NONE, true, &plain, &sent).shared_lines > 500);
    CHECK(sent < plain * 9 / 10);
    CHECK(run_epochs(&similar, SP_CODEC_MASKED, SP_SQUEEZE_NONE, true, &plain, &sent).similar_pages > 20);
    CHECK(sent < plain * 9 / 10);
    run_epochs(&nothing, SP_CODEC_MASKED, SP_SQUEEZE_NONE, true, &plain, &sent);
    CHECK(sent <= plain);
    run_epochs(&nothing, SP_CODEC_MASKED, SP_SQUEEZE_ZSTD, true, &plain, &sent);
    CHECK(sent < plain * 9 / 10);
}

static void all_together(void)
{
    for (unsigned round = 0; round < 48; round++) {
        size_t plain, sent;
        struct sp_reduce_parts parts = {.dictionary = round & 1, .sharing = round & 2, .similar = round & 4,
                                        .block_bytes = 64u << draw(7)};
        CHECK(sp_cpu_select(round & 1 ? "scalar" : "best"));
        run_epochs(&parts, (enum sp_codec)draw(SP_CODEC_COUNT), draw(4), draw(4) != 0, &plain, &sent);
    }
}

/* The ring of the dictionary goes round, and both sides still agree. */
static void dictionary_goes_round(void)
{
    struct sp_dictionary *one = calloc(1, sizeof *one);
    uint8_t line[SP_LINE_BYTES], back[SP_LINE_BYTES];
    for (unsigned i = 0; i < 3 * SP_DICTIONARY_SLOTS; i++) {
        memset(line, 0, sizeof line);
        memcpy(line + 8, &i, 4);
        line[63] = 9;
        CHECK(sp_dictionary_find(one, line) < 0);
        sp_dictionary_learn(one, line);
        int32_t code = sp_dictionary_find(one, line);
        CHECK(code >= SP_DICTIONARY_FILLS);
        CHECK(sp_dictionary_line(one, (uint16_t)code, back) && memcmp(line, back, sizeof line) == 0);
    }
    CHECK(one->count == SP_DICTIONARY_SLOTS);
    memset(line, 0x5a, sizeof line);
    CHECK(sp_dictionary_find(one, line) == 0x5a);
    sp_dictionary_clear(one);
    CHECK(!sp_dictionary_line(one, SP_DICTIONARY_FILLS, back));
    free(one);
}

static void damaged_input_is_refused(void)
{
    struct sp_reduce_parts parts = {true, true, true, 256};
    struct sp_vector out = {0}, restored = {0};
    for (unsigned round = 0; round < 400; round++) {
        struct sp_reducer *reducer = sp_reducer_new(PAGES, &parts);
        struct sp_restorer *restorer = sp_restorer_new();
        struct sp_reduce_stats stats = {0};
        struct sp_delta_summary summary;
        uint8_t dirty[PAGES] = {0};
        struct sp_run everything = {0, PAGES};
        write_epoch(dirty);
        size_t bytes = capture(SP_CODEC_MASKED, true, &everything, 1);
        sp_reducer_begin(reducer, false);
        CHECK(sp_reduce(reducer, delta, bytes, shadow, round % 3, &out, &stats) == NULL);
        CHECK(out.bytes > 0);
        for (unsigned flips = 1 + draw(3); flips; flips--)
            out.data[draw(draw(2) ? 40 : (uint32_t)out.bytes)] ^= (uint8_t)(1 + draw(255));
        size_t length = draw(3) ? out.bytes : draw((uint32_t)out.bytes);
        if (restore(restorer, out.data, length, &restored) == NULL)
            sp_delta_check(restored.data, restored.bytes, PAGES, &summary);
        sp_reducer_free(reducer);
        sp_restorer_free(restorer);
    }
    sp_vector_free(&out);
    sp_vector_free(&restored);
}

int main(void)
{
    each_part_pays();
    all_together();
    dictionary_goes_round();
    damaged_input_is_refused();
    return 0;
}
