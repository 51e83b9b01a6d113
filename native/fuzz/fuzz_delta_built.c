/*
 * Deltas built record by record from a grammar, of every codec, and then bent: check and apply agree, both CPU paths give the
 * same image, what is refused changes nothing, and applying twice gives the same as once. The list of its pages is that of the
 * pages that changed.
 */
#include "grammar.h"

enum { PAGES = 40, BYTES = PAGES * SP_PAGE_BYTES };

static void masked(struct choices *choices, struct sp_vector *out)
{
    uint64_t map = choose_map(choices);
    struct sp_vector words = {0}, masks = {0}, whole = {0}, data = {0};
    for (uint64_t rest = map; rest; rest &= rest - 1) {
        uint8_t some[8];
        unsigned bytes, changed = choose_words(choices);
        add(&words, changed);
        if (changed == 0) {
            add_noise(choices, &whole, SP_LINE_BYTES);
            continue;
        }
        unsigned count = choose_masks(choices, changed, some, &bytes);
        must(sp_vector_put(&masks, some, count));
        add_noise(choices, &data, bytes);
    }
    add_map(out, map);
    struct sp_vector *levels[] = {&words, &masks, &whole, &data};
    for (unsigned level = 0; level < 4; level++) {
        must(sp_vector_put(out, levels[level]->data, levels[level]->bytes));
        sp_vector_free(levels[level]);
    }
}

static void runs(struct choices *choices, struct sp_vector *out)
{
    struct sp_vector made = {0};
    unsigned at = 0, count = choose(choices, 20) + 1;
    for (unsigned i = 0; i < count && at < SP_PAGE_BYTES; i++) {
        unsigned left = SP_PAGE_BYTES - at;
        unsigned equal = choose(choices, choose(choices, 4) ? 60 : 4096) + (i > 0), changed = choose(choices, choose(choices, 4) ? 40 : 4096) + 1;
        if (!seldom(choices)) {
            equal = equal < left ? equal : left - 1;
            changed = changed < left - equal ? changed : left - equal;
        }
        add_uleb(&made, equal);
        add_uleb(&made, changed);
        add_noise(choices, &made, changed);
        at += equal + changed;
    }
    add_uleb(out, (uint32_t)made.bytes);
    must(sp_vector_put(out, made.data, made.bytes));
    sp_vector_free(&made);
}

static void record(struct choices *choices, enum sp_codec codec, struct sp_vector *out)
{
    unsigned form = choose(choices, 8);
    if (codec == SP_CODEC_PAGE || form < 2) {
        unsigned kind = seldom(choices) ? choose(choices, 256) : form % 2;
        add(out, 0);
        add(out, kind);
        if (kind == 1)
            add_noise(choices, out, SP_PAGE_BYTES);
    } else if (codec == SP_CODEC_LINE) {
        uint64_t map = choose_map(choices);
        if (map == ~0ull && !seldom(choices))
            map >>= 1;
        add_map(out, map);
        add_noise(choices, out, (size_t)__builtin_popcountll(map) * SP_LINE_BYTES);
    } else if (codec == SP_CODEC_XOR_RLE) {
        runs(choices, out);
    } else {
        masked(choices, out);
    }
}

static void build(struct choices *choices, struct sp_vector *delta)
{
    enum sp_codec codec = (enum sp_codec)choose(choices, SP_CODEC_COUNT);
    unsigned whole = choose(choices, 2), records = choose(choices, PAGES) + 1, page = 0, made = 0;
    const uint8_t header[SP_DELTA_HEADER_BYTES] = {'S', 'D', SP_DELTA_VERSION, (uint8_t)codec, (uint8_t)whole};
    must(sp_vector_put(delta, header, sizeof header));
    for (; made < records && page < PAGES; made++, page++) {
        unsigned gap = choose(choices, 3);
        gap = page + gap < PAGES || seldom(choices) ? gap : 0;
        add_uleb(delta, gap);
        page += gap;
        record(choices, codec, delta);
    }
    bend(choices, delta);
    while (delta->bytes < SP_DELTA_HEADER_BYTES)
        add(delta, 0);
    store32(delta->data + 8, made + (seldom(choices) ? choose(choices, 4) : 0));
    store32(delta->data + 12, (uint32_t)(delta->bytes - SP_DELTA_HEADER_BYTES));
    for (unsigned i = 0; i < SP_DELTA_PAD_BYTES; i++)
        add(delta, seldom(choices) && seldom(choices) ? 1 : 0);
}

static bool apply(const char *path, const struct sp_vector *delta, uint8_t *image)
{
    struct sp_delta_summary summary;
    uint8_t *exact = exact_copy(delta->data, delta->bytes);
    must(sp_cpu_select(path));
    bool sound = sp_delta_check(exact, delta->bytes, PAGES, &summary) == NULL;
    must((sp_delta_apply(image, PAGES, exact, delta->bytes, &summary) == NULL) == sound);
    free(exact);
    return sound;
}

/* Pages that are not named stay as they are. */
static void check_pages(const struct sp_vector *delta, const uint8_t *before, const uint8_t *after)
{
    struct sp_run runs[PAGES];
    bool named[PAGES] = {false};
    size_t count = sp_delta_pages(delta->data, delta->bytes, runs);
    must(count <= PAGES);
    for (size_t run = 0; run < count; run++)
        for (uint64_t page = runs[run].first; page < (uint64_t)runs[run].first + runs[run].count; page++) {
            must(page < PAGES);
            named[page] = true;
        }
    for (unsigned page = 0; page < PAGES; page++)
        must(named[page] || memcmp(before + page * SP_PAGE_BYTES, after + page * SP_PAGE_BYTES, SP_PAGE_BYTES) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t before[BYTES];
    if (before[0] == 0)
        memset(before, 0xa5, BYTES);
    struct choices choices = {data, data + size, 1};
    struct sp_vector delta = {0};
    uint8_t *one = exact_copy(before, BYTES), *other = exact_copy(before, BYTES);
    build(&choices, &delta);
    bool sound = apply("best", &delta, one);
    must(apply("scalar", &delta, other) == sound);
    must(memcmp(one, other, BYTES) == 0);
    if (sound) {
        check_pages(&delta, before, one);
        must(apply("best", &delta, other));
        must(memcmp(one, other, BYTES) == 0);
    } else {
        must(memcmp(one, before, BYTES) == 0);
    }
    sp_vector_free(&delta);
    free(one);
    free(other);
    return 0;
}
