/*
 * Reduced deltas that our sender never makes: each is refused, and the one next to it that keeps the rule is restored. Each
 * comes after raw pages of every number, so that the vector that takes what is restored is at its end at some time.
 */
#include "columns.h"

enum { PAGES = 64, BYTES = PAGES * SP_PAGE_BYTES, RAW_PAGES_MAX = 9, BYTES_MAX = 1 << 20 };

static uint8_t image[BYTES];
static struct columns made;
static struct sp_vector frame;

static const char *restore_with(struct sp_restorer *restorer, size_t bytes_max)
{
    struct sp_vector out = {0};
    struct sp_delta_summary summary;
    /* Ends where it ends: the sanitizer sees a read behind it. */
    uint8_t *exact = malloc(frame.bytes);
    memcpy(exact, frame.data, frame.bytes);
    const char *problem = sp_restore(restorer, exact, frame.bytes, image, PAGES, bytes_max, &out);
    if (!problem)
        problem = sp_delta_check(out.data, out.bytes, PAGES, &summary);
    free(exact);
    sp_vector_free(&out);
    return problem;
}

static const char *restore(void)
{
    struct sp_restorer *restorer = sp_restorer_new();
    const char *problem = restore_with(restorer, BYTES_MAX);
    sp_restorer_free(restorer);
    return problem;
}

static void raw_pages(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        column_page(&made, 0, SP_PAGE_RAW);
        column_fill(&made, SP_COLUMN_LINES, 7, SP_PAGE_BYTES);
    }
}

/* So many lines of eight words each, which name `bytes` bytes. */
static void costly_lines(unsigned lines, unsigned bytes)
{
    column_page(&made, 0, SP_PAGE_MAP);
    column_map(&made, lines == SP_LINES_PER_PAGE ? ~0ull : (1ull << lines) - 1);
    column_fill(&made, SP_COLUMN_WORDS, 0xff, lines);
    for (unsigned line = 0; line < lines; line++)
        for (unsigned word = 0; word < 8; word++)
            column_byte(&made, SP_COLUMN_MASKS, (1u << ((bytes + word) / 8)) - 1);
    column_fill(&made, SP_COLUMN_BYTES, 'A', (size_t)lines * bytes);
}

static void expect(const char *problem, const char *wanted)
{
    if (!wanted ? problem != NULL : !problem || strcmp(problem, wanted) != 0) {
        fprintf(stderr, "it says \"%s\", not \"%s\"\n", problem ? problem : "nothing", wanted ? wanted : "nothing");
        abort();
    }
}

static void lines_cost_less_than_64_bytes(void)
{
    static const char costs[] = "a line costs more by its words than whole";
    for (unsigned before = 0; before <= RAW_PAGES_MAX; before++)
        for (unsigned bytes = 48; bytes <= 64; bytes++)
            for (unsigned lines = 1; lines <= SP_LINES_PER_PAGE; lines += lines == 1 ? 62 : 1) {
                raw_pages(before);
                costly_lines(lines, bytes);
                columns_seal(&made, 0, &frame);
                expect(restore(), bytes + 8 >= SP_LINE_BYTES ? costs : NULL);
            }
}

/* Any number of lines whole and the rest by words: when all are whole the record is the longest of all. */
_Static_assert(SP_RECORD_BYTES_MAX == 9 + SP_LINES_PER_PAGE * (1 + SP_LINE_BYTES), "map, words and content of every line");
static void longest_records_fit(void)
{
    for (unsigned before = 0; before <= RAW_PAGES_MAX; before++)
        for (unsigned whole = 0; whole <= SP_LINES_PER_PAGE; whole++) {
            unsigned named = SP_LINES_PER_PAGE - whole;
            raw_pages(before);
            column_page(&made, 0, SP_PAGE_MAP);
            column_map(&made, ~0ull);
            column_fill(&made, SP_COLUMN_WORDS, 0, whole);
            column_fill(&made, SP_COLUMN_WORDS, 0x7f, named);
            column_fill(&made, SP_COLUMN_MASKS, 0xff, (size_t)named * 7);
            column_fill(&made, SP_COLUMN_BYTES, 'B', (size_t)named * 56);
            column_fill(&made, SP_COLUMN_LINES, 'C', (size_t)whole * SP_LINE_BYTES);
            columns_seal(&made, 0, &frame);
            expect(restore(), NULL);
        }
}

/* A page that resembles another one obeys the same rules. */
static void similar_pages(void)
{
    for (unsigned bytes = 55; bytes <= 64; bytes++) {
        column_page(&made, 0, SP_PAGE_SIMILAR);
        column_byte(&made, SP_COLUMN_PAGES, 2 * 5);
        column_map(&made, 1);
        column_byte(&made, SP_COLUMN_WORDS, 0xff);
        for (unsigned word = 0; word < 8; word++)
            column_byte(&made, SP_COLUMN_MASKS, (1u << ((bytes + word) / 8)) - 1);
        column_fill(&made, SP_COLUMN_BYTES, 'A', bytes);
        columns_seal(&made, 0, &frame);
        expect(restore(), bytes >= 56 ? "a line costs more by its words than whole" : NULL);
    }
    static const unsigned outside[] = {1, 3, 2 * PAGES, 2 * PAGES + 1};
    for (unsigned i = 0; i < sizeof outside / sizeof *outside; i++) {
        made.pages = 1;
        column_byte(&made, SP_COLUMN_PAGES, 0);
        column_byte(&made, SP_COLUMN_PAGES, SP_PAGE_SIMILAR);
        if (outside[i] >= 128)
            column_byte(&made, SP_COLUMN_PAGES, outside[i] | 128);
        column_byte(&made, SP_COLUMN_PAGES, outside[i] >> (outside[i] >= 128 ? 7 : 0));
        column_map(&made, 1);
        column_byte(&made, SP_COLUMN_WORDS, 0);
        column_fill(&made, SP_COLUMN_LINES, 1, SP_LINE_BYTES);
        columns_seal(&made, 0, &frame);
        expect(restore(), "a similar page lies outside the image");
    }
}

/* One line that names `mask` in its only word. */
static void one_word(unsigned mask)
{
    column_page(&made, 0, SP_PAGE_MAP);
    column_map(&made, 1);
    column_byte(&made, SP_COLUMN_WORDS, 1);
    column_byte(&made, SP_COLUMN_MASKS, mask);
    column_fill(&made, SP_COLUMN_BYTES, 1, (unsigned)__builtin_popcount(mask));
}

static void what_names_nothing(void)
{
    one_word(1);
    columns_seal(&made, 0, &frame);
    expect(restore(), NULL);
    one_word(0);
    columns_seal(&made, 0, &frame);
    expect(restore(), "a changed word names no byte");
    /* A map whose first byte is named and zero. */
    column_page(&made, 0, SP_PAGE_MAP);
    column_put(&made, SP_COLUMN_MAPS, (uint8_t[]){3, 0, 1}, 3);
    column_byte(&made, SP_COLUMN_WORDS, 0);
    column_fill(&made, SP_COLUMN_LINES, 1, SP_LINE_BYTES);
    columns_seal(&made, 0, &frame);
    expect(restore(), "a map names an empty byte");
    column_page(&made, 0, SP_PAGE_MAP);
    column_map(&made, 0);
    columns_seal(&made, 0, &frame);
    expect(restore(), "a page has no change");
    column_page(&made, 0, SP_PAGE_RAW | SP_PAGE_HAS_RUNS);
    column_byte(&made, SP_COLUMN_PAGES, 0);
    column_fill(&made, SP_COLUMN_LINES, 1, SP_PAGE_BYTES);
    columns_seal(&made, 0, &frame);
    expect(restore(), "a page has no shared block");
    column_page(&made, 0, SP_PAGE_RAW | SP_PAGE_HAS_CODES);
    column_map(&made, 0);
    column_map(&made, 0);
    column_fill(&made, SP_COLUMN_LINES, 1, SP_PAGE_BYTES);
    columns_seal(&made, 0, &frame);
    expect(restore(), "a page has no known line");
    columns_seal(&made, 0, &frame);
    expect(restore(), "it has no page");
}

/* A raw page of which `lines` lines, from `to`, come from line `from` of the page that `reference` names. */
static const char *one_run(unsigned to, unsigned lines, unsigned from, unsigned reference)
{
    column_page(&made, 0, SP_PAGE_RAW | SP_PAGE_HAS_RUNS);
    column_put(&made, SP_COLUMN_PAGES, (uint8_t[]){1, (uint8_t)to, (uint8_t)lines, (uint8_t)from, (uint8_t)reference}, 5);
    column_fill(&made, SP_COLUMN_LINES, 1, lines <= SP_LINES_PER_PAGE ? (size_t)(SP_LINES_PER_PAGE - lines) * SP_LINE_BYTES : 0);
    columns_seal(&made, 0, &frame);
    return restore();
}

static void runs_stay_inside(void)
{
    static const char leaves[] = "a shared block leaves its page";
    expect(one_run(0, 64, 0, 2), NULL);
    expect(one_run(63, 1, 63, 2 * (PAGES - 1)), NULL);
    expect(one_run(0, 0, 0, 2), leaves);
    expect(one_run(1, 64, 0, 2), leaves);
    expect(one_run(0, 64, 1, 2), leaves);
    expect(one_run(64, 1, 0, 2), leaves);
    expect(one_run(0, 1, 64, 2), leaves);
    expect(one_run(0, 255, 255, 2), leaves);
    expect(one_run(255, 255, 255, 2), leaves);
    expect(one_run(0, 1, 0, 2 * PAGES - 2 + 1), "a shared block lies outside the image");
}

/* Nothing that is compressed can be announced longer than what a body, or a receiver, accepts. */
static void lengths_that_lie(void)
{
    uint8_t *bytes;
    struct sp_restorer *restorer = sp_restorer_new();
    raw_pages(3);
    columns_seal(&made, 0, &frame);
    expect(restore_with(restorer, 4096), "it is larger than is accepted");
    sp_restorer_free(restorer);
    for (unsigned method = 0; method < SP_SQUEEZE_COUNT; method++) {
        frame.bytes = 0;
        CHECK(sp_vector_reserve(&frame, 128));
        sp_vector_append(&frame, (uint8_t[]){'S', 'R', 1, (uint8_t)(method << 1)}, 4);
        sp_vector_append_uleb(&frame, 1);
        size_t head = frame.bytes;
        for (unsigned largest = 0; largest < 2; largest++) {
            frame.bytes = head;
            for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
                sp_vector_append_uleb(&frame, largest ? UINT32_MAX : column == 0 ? SP_REDUCED_BODY_BYTES_MAX : 1);
            expect(restore(), "it is larger than is accepted");
        }
    }
    /* Plain: as it is, of another codec, of another number of pages, and without a header. */
    for (unsigned codec = 0; codec < SP_CODEC_COUNT; codec++)
        for (unsigned squeezed = 0; squeezed < 2; squeezed++)
            for (unsigned pages = 1; pages <= 2; pages++) {
                bytes = calloc(1, 4128);
                memcpy(bytes, (uint8_t[]){'S', 'D', 1, (uint8_t)codec, 0, 0, 0, 0, 1, 0, 0, 0, 3}, 13);
                struct sp_squeezer *squeezer = sp_squeezer_new();
                frame.bytes = 0;
                CHECK(sp_vector_reserve(&frame, 128));
                sp_vector_append(&frame, (uint8_t[]){'S', 'R', 1, (uint8_t)(SP_REDUCED_PLAIN | (squeezed ? SP_SQUEEZE_ZSTD << 1 : 0))}, 4);
                sp_vector_append_uleb(&frame, pages);
                sp_vector_append_uleb(&frame, 27);
                if (squeezed)
                    CHECK(sp_squeeze(squeezer, SP_SQUEEZE_ZSTD, bytes, 27, &frame) == SP_SQUEEZE_ZSTD);
                else
                    CHECK(sp_vector_put(&frame, bytes, 27));
                bool has_lines = codec == SP_CODEC_LINE || codec == SP_CODEC_MASKED;
                expect(restore(), !squeezed    ? "it is a delta as it is, and not compressed"
                                  : has_lines  ? "it is plain, and of a codec that has lines"
                                  : pages != 1 ? "it has another number of pages than it says"
                                               : NULL);
                sp_squeezer_free(squeezer);
                free(bytes);
            }
}

int main(void)
{
    for (size_t at = 0; at < BYTES; at++)
        image[at] = (uint8_t)(at * 31 >> 3);
    lines_cost_less_than_64_bytes();
    longest_records_fit();
    similar_pages();
    what_names_nothing();
    runs_stay_inside();
    lengths_that_lie();
    columns_free(&made);
    sp_vector_free(&frame);
    return 0;
}
