/*
 * Reduced deltas built column by column from a grammar and then bent, through one restorer, as over a connection. Each is
 * refused, or becomes a delta that sp_delta_check takes: what the restorer accepts, no later check may have to catch, but for a
 * delta that was only compressed. References are listed first for some.
 */
#include "grammar.h"

enum { PAGES = 48, BYTES = PAGES * SP_PAGE_BYTES, FRAMES_MAX = 8, FRAME_PAGES_MAX = 40, BYTES_MAX = 1 << 20 };

struct builder {
    struct choices choices;
    struct sp_vector column[SP_COLUMN_COUNT];
    uint32_t page, pages;
};

static void near_page(struct builder *b, uint32_t here)
{
    uint32_t page = choose(&b->choices, PAGES);
    if (seldom(&b->choices))
        page = choose(&b->choices, 65536);
    int64_t distance = (int64_t)page - here;
    add_uleb(&b->column[SP_COLUMN_PAGES], (uint32_t)(distance < 0 ? -2 * distance - 1 : 2 * distance));
}

static uint64_t runs(struct builder *b, uint64_t map, uint32_t here)
{
    struct sp_vector *column = &b->column[SP_COLUMN_PAGES];
    unsigned count = choose(&b->choices, 4) + !seldom(&b->choices);
    uint64_t taken = 0;
    size_t at = column->bytes;
    unsigned made = 0;
    add(column, 0);
    for (unsigned i = 0; i < count; i++) {
        unsigned to = choose(&b->choices, 64), lines = choose(&b->choices, 64) + 1, from = choose(&b->choices, 64);
        if (!seldom(&b->choices)) {
            lines = to + lines > 64 ? 64 - to : lines;
            lines = from + lines > 64 ? 64 - from : lines;
            uint64_t wanted = (lines == 64 ? ~0ull : (1ull << lines) - 1) << to;
            if ((map & wanted) != wanted || (taken & wanted))
                continue;
            taken |= wanted;
        }
        add(column, to);
        add(column, lines);
        add(column, from);
        near_page(b, here);
        made++;
    }
    column->data[at] = (uint8_t)made;
    return taken;
}

static uint64_t codes(struct builder *b, uint64_t map)
{
    uint64_t known = choose_map(&b->choices) & map, next = choose_map(&b->choices) & known;
    if (known == 0)
        known = map & -map;
    next &= known;
    unsigned base = choose(&b->choices, 2) ? 0 : 256;
    add_map(&b->column[SP_COLUMN_MAPS], known);
    add_map(&b->column[SP_COLUMN_MAPS], next);
    for (unsigned i = 0; i < (unsigned)__builtin_popcountll(known & ~next); i++) {
        unsigned code = base + choose(&b->choices, seldom(&b->choices) ? 65536 : 40);
        add(&b->column[SP_COLUMN_CODES], code);
        add(&b->column[SP_COLUMN_CODES], code >> 8);
    }
    return known;
}

static void lines(struct builder *b, uint64_t map, bool raw)
{
    for (; map; map &= map - 1) {
        uint8_t masks[8];
        unsigned bytes, words = raw ? 0 : choose_words(&b->choices);
        if (!raw)
            add(&b->column[SP_COLUMN_WORDS], words);
        if (words == 0) {
            add_noise(&b->choices, &b->column[SP_COLUMN_LINES], SP_LINE_BYTES);
            continue;
        }
        unsigned count = choose_masks(&b->choices, words, masks, &bytes);
        must(sp_vector_put(&b->column[SP_COLUMN_MASKS], masks, count));
        add_noise(&b->choices, &b->column[SP_COLUMN_BYTES], bytes);
    }
}

static void build_page(struct builder *b)
{
    static const uint8_t forms[] = {SP_PAGE_ZERO, SP_PAGE_RAW, SP_PAGE_RAW, SP_PAGE_MAP, SP_PAGE_MAP, SP_PAGE_MAP, SP_PAGE_SIMILAR, 4};
    unsigned form = forms[choose(&b->choices, 7 + seldom(&b->choices))], gap = choose(&b->choices, 2);
    unsigned has = form == SP_PAGE_RAW || form == SP_PAGE_MAP ? choose(&b->choices, 4) << 3 : 0;
    if (seldom(&b->choices))
        has = choose(&b->choices, 32) << 3;
    b->page += gap;
    add_uleb(&b->column[SP_COLUMN_PAGES], gap);
    add(&b->column[SP_COLUMN_PAGES], form | has);
    b->pages++;
    uint64_t map = ~0ull;
    if (form == SP_PAGE_SIMILAR)
        near_page(b, b->page);
    if (form == SP_PAGE_MAP || form == SP_PAGE_SIMILAR) {
        map = choose_map(&b->choices);
        add_map(&b->column[SP_COLUMN_MAPS], map);
    }
    if (form != SP_PAGE_ZERO) {
        if (has & SP_PAGE_HAS_RUNS)
            map &= ~runs(b, map, b->page);
        if (has & SP_PAGE_HAS_CODES && map)
            map &= ~codes(b, map);
        lines(b, map, form == SP_PAGE_RAW);
    }
    b->page++;
}

/* Plain: a delta of codec `page` or `xor-rle` with zero pages, as it is, compressed. */
static void build_plain(struct builder *b, struct sp_vector *body)
{
    unsigned pages = choose(&b->choices, 8) + 1;
    const uint8_t header[16] = {'S', 'D', SP_DELTA_VERSION, choose(&b->choices, 8) ? SP_CODEC_PAGE : SP_CODEC_XOR_RLE, 0, 0, 0, 0,
                                (uint8_t)pages, 0, 0, 0, (uint8_t)(3 * pages)};
    must(sp_vector_put(body, header, sizeof header));
    for (unsigned i = 0; i < 3 * pages + SP_DELTA_PAD_BYTES; i++)
        add(body, 0);
    b->pages = pages;
}

static void build(struct builder *b, struct sp_squeezer *squeezer, struct sp_vector *body, struct sp_vector *frame)
{
    bool plain = seldom(&b->choices);
    enum sp_squeeze method = (enum sp_squeeze)choose(&b->choices, SP_SQUEEZE_COUNT);
    unsigned whole = choose(&b->choices, 2) && !plain;
    b->page = b->pages = 0;
    body->bytes = frame->bytes = 0;
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        b->column[column].bytes = 0;
    if (plain)
        build_plain(b, body);
    for (unsigned i = plain ? 0 : choose(&b->choices, FRAME_PAGES_MAX) + 1; i > 0 && b->page < PAGES; i--)
        build_page(b);
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        bend(&b->choices, &b->column[column]);
    add(frame, 'S');
    add(frame, 'R');
    add(frame, SP_REDUCED_VERSION);
    add(frame, whole | (plain ? SP_REDUCED_PLAIN : 0));
    add_uleb(frame, b->pages + (seldom(&b->choices) ? choose(&b->choices, 3) : 0));
    if (plain)
        add_uleb(frame, (uint32_t)body->bytes);
    for (unsigned column = 0; !plain && column < SP_COLUMN_COUNT; column++) {
        add_uleb(frame, (uint32_t)b->column[column].bytes + (seldom(&b->choices) ? choose(&b->choices, 256) : 0));
        must(sp_vector_put(body, b->column[column].data, b->column[column].bytes));
    }
    must(sp_vector_reserve(body, 1));
    method = sp_squeeze(squeezer, method, body->data, body->bytes, frame);
    must(method != SP_SQUEEZE_COUNT);
    if (method == SP_SQUEEZE_NONE)
        must(sp_vector_put(frame, body->data, body->bytes));
    frame->data[3] |= (uint8_t)(method << SP_REDUCED_METHOD_SHIFT);
    bend(&b->choices, frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t first[BYTES];
    if (first[1] == 0)
        for (size_t at = 0; at < BYTES; at++)
            first[at] = (uint8_t)(at / SP_LINE_BYTES * 31 + at);
    struct builder b = {.choices = {data, data + size, 1}};
    struct sp_vector body = {0}, frame = {0}, out = {0};
    struct sp_restorer *restorer = sp_restorer_new();
    struct sp_squeezer *squeezer = sp_squeezer_new();
    uint8_t *image = exact_copy(first, BYTES);
    sp_cpu_select(choose(&b.choices, 2) ? "scalar" : "best");
    for (unsigned frames = choose(&b.choices, FRAMES_MAX) + 1; frames > 0; frames--) {
        struct sp_delta_summary summary;
        build(&b, squeezer, &body, &frame);
        uint8_t *piece = exact_copy(frame.data, frame.bytes);
        const char *problem = NULL;
        if (choose(&b.choices, 2))
            problem = sp_restore_references(restorer, piece, frame.bytes, PAGES, BYTES_MAX, &out);
        if (!problem)
            problem = sp_restore(restorer, piece, frame.bytes, image, PAGES, BYTES_MAX, &out);
        bool plain = frame.bytes > 3 && piece[3] & SP_REDUCED_PLAIN;
        free(piece);
        if (problem)
            break;
        must(out.bytes <= BYTES_MAX + SP_PAGE_RECORD_MAX);
        uint8_t *delta = exact_copy(out.data, out.bytes);
        problem = sp_delta_apply(image, PAGES, delta, out.bytes, &summary);
        must(plain || !problem);
        free(delta);
        if (problem)
            break;
    }
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        sp_vector_free(&b.column[column]);
    sp_vector_free(&body);
    sp_vector_free(&frame);
    sp_vector_free(&out);
    sp_squeezer_free(squeezer);
    sp_restorer_free(restorer);
    free(image);
    return 0;
}
