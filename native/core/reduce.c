/* See reduce.h: the sender's side. */
#include "reduce.h"

#include "record.h"
#include "reduce_parts.h"

enum {
    /* A code takes two bytes and its share of two maps: what costs no more stays as it is. */
    CODE_COST = 3,
    /* A run names a page and two places in it. */
    RUN_COST = 8,
    /* What a page must still cost before another one is looked at that resembles it. */
    SIMILAR_COST_MIN = 1024,
};

struct sp_reducer *sp_reducer_new(uint64_t pages, const struct sp_reduce_parts *parts)
{
    struct sp_reducer *reducer = calloc(1, sizeof *reducer);
    if (!reducer)
        return NULL;
    reducer->parts = *parts;
    reducer->pages = pages;
    reducer->epoch = calloc(pages / 64 + 1, 8);
    reducer->squeezer = sp_squeezer_new();
    bool whole = reducer->epoch && reducer->squeezer;
    if (parts->dictionary)
        whole = (reducer->dictionary = calloc(1, sizeof *reducer->dictionary)) && whole;
    if (parts->sharing || parts->similar)
        whole = sp_known_open(&reducer->known, pages, parts->block_bytes, parts->similar) && whole;
    if (!whole) {
        sp_reducer_free(reducer);
        return NULL;
    }
    return reducer;
}

void sp_reducer_free(struct sp_reducer *reducer)
{
    if (!reducer)
        return;
    sp_known_close(&reducer->known);
    sp_squeezer_free(reducer->squeezer);
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        sp_vector_free(&reducer->columns[column]);
    sp_vector_free(&reducer->body);
    sp_vector_free(&reducer->heads);
    sp_vector_free(&reducer->odd);
    free(reducer->dictionary);
    free(reducer->epoch);
    free(reducer);
}

uint64_t sp_reducer_pages(const struct sp_reducer *reducer)
{
    return reducer->pages;
}

size_t sp_reducer_bytes(const struct sp_reducer *reducer)
{
    size_t bytes = sizeof *reducer + reducer->pages / 8 + reducer->body.capacity + sp_known_bytes(&reducer->known);
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        bytes += reducer->columns[column].capacity;
    return bytes + (reducer->dictionary ? sizeof *reducer->dictionary : 0);
}

uint64_t sp_reducer_digest(const struct sp_reducer *reducer)
{
    return reducer->dictionary ? reducer->dictionary->digest : 0;
}

void sp_reducer_begin(struct sp_reducer *reducer, bool references)
{
    reducer->references = references;
    memset(reducer->epoch, 0, (reducer->pages / 64 + 1) * 8);
}

static void learn_memory(struct sp_reducer *reducer, const struct sp_page_view *view)
{
    const struct sp_known *known = &reducer->known;
    unsigned lines = known->block_bytes / SP_LINE_BYTES;
    uint64_t block_map = lines == SP_LINES_PER_PAGE ? ~0ull : (1ull << lines) - 1;
    uint64_t per_page = SP_PAGE_BYTES / known->block_bytes;
    for (unsigned block = 0; block < per_page; block++)
        if (view->line_map & block_map << (block * lines))
            sp_known_learn_block(&reducer->known, view->memory + block * known->block_bytes,
                                 view->page * per_page + block);
    if (reducer->parts.similar)
        sp_known_learn_sketch(&reducer->known, view->memory, (uint32_t)view->page);
}

void sp_reducer_know(struct sp_reducer *reducer, const struct sp_run *runs, size_t run_count, const uint8_t *memory)
{
    if (!reducer->known.blocks)
        return;
    for (size_t run = 0; run < run_count; run++)
        for (uint64_t page = runs[run].first, end = page + runs[run].count; page < end && page < reducer->pages; page++) {
            const struct sp_page_view view = {.page = page, .line_map = ~0ull, .memory = memory + page * SP_PAGE_BYTES};
            learn_memory(reducer, &view);
        }
}

bool sp_reducer_include(struct sp_reducer *reducer, const struct sp_run *runs, size_t run_count)
{
    for (size_t run = 0; run < run_count; run++) {
        uint64_t page = runs[run].first, end = page + runs[run].count;
        if (end > reducer->pages)
            return false;
        for (; page < end; page++)
            reducer->epoch[page / 64] |= 1ull << (page % 64);
    }
    return true;
}

static bool may_refer(const struct sp_pass *pass, uint64_t page)
{
    const struct sp_reducer *reducer = pass->reducer;
    if (page >= reducer->pages)
        return false;
    return pass->refer == SP_REFER_AFTER || !(reducer->epoch[page / 64] >> (page % 64) & 1);
}

/* ---- what the record says of each line ---- */

void sp_view_literal(struct sp_page_view *view, uint64_t map, const uint8_t *data)
{
    FOR_LINES(line, map) {
        view->content[line] = data;
        view->words[line] = 0;
        data += SP_LINE_BYTES;
    }
    view->literal_map = map;
}

static void view_masked(struct sp_page_view *view, const struct sp_masked_parts *parts)
{
    const uint8_t *words = parts->words, *masks = parts->masks, *lines = parts->lines, *bytes = parts->data;
    view->literal_map = 0;
    FOR_LINES(line, parts->line_map) {
        view->words[line] = *words++;
        if (view->words[line] == 0) {
            view->literal_map |= 1ull << line;
            view->content[line] = lines;
            lines += SP_LINE_BYTES;
            continue;
        }
        unsigned count = (unsigned)__builtin_popcount(view->words[line]), byte_count = 0;
        view->content[line] = view->memory ? view->memory + line * SP_LINE_BYTES : NULL;
        view->masks[line] = masks;
        view->bytes[line] = bytes;
        for (unsigned i = 0; i < count; i++)
            byte_count += (unsigned)__builtin_popcount(masks[i]);
        view->mask_count[line] = (uint8_t)count;
        view->byte_count[line] = (uint8_t)byte_count;
        masks += count;
        bytes += byte_count;
    }
}

static void view_record(struct sp_page_view *view, const struct sp_record *record)
{
    view->run_map = view->code_map = 0;
    view->raw = record->form == SP_FORM_RAW;
    view->line_map = view->raw ? ~0ull : record->masked.line_map;
    if (record->form == SP_FORM_MASKED)
        view_masked(view, &record->masked);
    else
        sp_view_literal(view, view->line_map, record->data);
}

static unsigned line_cost(const struct sp_page_view *view, uint64_t line)
{
    if (view->literal_map >> line & 1)
        return SP_LINE_BYTES + !view->raw;
    return 1u + view->mask_count[line] + view->byte_count[line];
}

static unsigned cost_of(const struct sp_page_view *view, uint64_t map)
{
    unsigned cost = 0;
    FOR_LINES(line, map)
        cost += line_cost(view, line);
    return cost;
}

/* ---- what is known already ---- */

struct run {
    uint8_t to, count, from;
    uint64_t page;
};

/* Blocks of this page that lie elsewhere in the memory, outside of the epoch: compared byte by byte, and as far as they go. */
static unsigned find_runs(const struct sp_pass *pass, struct sp_page_view *view, struct run *runs)
{
    const struct sp_known *known = &pass->reducer->known;
    const uint8_t *memory = pass->memory;
    unsigned lines = known->block_bytes / SP_LINE_BYTES, count = 0;
    uint64_t block_map = lines == SP_LINES_PER_PAGE ? ~0ull : (1ull << lines) - 1;
    for (unsigned to = 0; to < SP_LINES_PER_PAGE;) {
        uint64_t map = block_map << to;
        int64_t block = -1;
        if ((view->line_map & map) == map && cost_of(view, map) > RUN_COST + lines)
            block = sp_known_block(known, view->memory + to * SP_LINE_BYTES);
        uint64_t at = (uint64_t)block << known->block_shift, page = at / SP_PAGE_BYTES;
        if (block < 0 || !may_refer(pass, page) ||
            memcmp(memory + at, view->memory + to * SP_LINE_BYTES, known->block_bytes) != 0) {
            to += lines;
            continue;
        }
        unsigned from = (unsigned)(at / SP_LINE_BYTES % SP_LINES_PER_PAGE), length = lines;
        /* Blocks before it that the index has lost. */
        while (to > 0 && from > 0 && view->line_map & ~view->run_map & 1ull << (to - 1) &&
               memcmp(memory + at - SP_LINE_BYTES, view->memory + (to - 1) * SP_LINE_BYTES, SP_LINE_BYTES) == 0) {
            at -= SP_LINE_BYTES;
            to--;
            from--;
            length++;
        }
        while (to + length < SP_LINES_PER_PAGE && from + length < SP_LINES_PER_PAGE &&
               (view->line_map >> (to + length) & 1) &&
               memcmp(memory + at + length * SP_LINE_BYTES, view->memory + (to + length) * SP_LINE_BYTES,
                      SP_LINE_BYTES) == 0)
            length++;
        runs[count++] = (struct run){(uint8_t)to, (uint8_t)length, (uint8_t)from, page};
        view->run_map |= (length == SP_LINES_PER_PAGE ? ~0ull : (1ull << length) - 1) << to;
        /* The next aligned block behind what the run took. */
        to = (to + length + lines - 1) / lines * lines;
    }
    return count;
}

static void find_codes(const struct sp_reducer *reducer, struct sp_page_view *view)
{
    FOR_LINES(line, view->line_map & ~view->run_map) {
        if (!view->content[line] || line_cost(view, line) <= CODE_COST)
            continue;
        int32_t code = sp_dictionary_find(reducer->dictionary, view->content[line]);
        if (code < 0)
            continue;
        view->codes[line] = (uint16_t)code;
        view->code_map |= 1ull << line;
    }
}

/* The page as a change of another one, when that takes less than half: its record, and the other page. */
static size_t find_similar(const struct sp_pass *pass, const struct sp_page_view *view, unsigned cost, uint8_t *record,
                           uint64_t *base)
{
    const struct sp_reducer *reducer = pass->reducer;
    const uint8_t *memory = pass->memory;
    uint32_t candidates[SP_SKETCH_GROUPS];
    unsigned count = sp_known_similar(&reducer->known, view->memory, candidates);
    size_t best = 0, limit = cost / 2;
    for (unsigned i = 0; i < count; i++) {
        uint8_t other[SP_PAGE_BYTES], tried[SP_PAGE_RECORD_MAX];
        struct sp_capture_stats unused = {0};
        if (!may_refer(pass, candidates[i]))
            continue;
        memcpy(other, memory + (uint64_t)candidates[i] * SP_PAGE_BYTES, SP_PAGE_BYTES);
        size_t bytes = sp_kernels_chosen()->capture[SP_CODEC_MASKED][0](view->memory, other, tried, &unused);
        /* 0: equal; a record that begins with 0 is a zero page or a raw one. */
        if (bytes == 0 || tried[0] == 0 || bytes >= limit)
            continue;
        memcpy(record, tried, bytes);
        SP_INVARIANT(bytes <= SP_RECORD_BYTES_MAX);
        best = bytes;
        limit = bytes;
        *base = candidates[i];
    }
    return best;
}

/* ---- output ---- */

static void put_page_near(struct sp_vector *vector, uint64_t page, uint64_t here)
{
    int64_t distance = (int64_t)page - (int64_t)here;
    sp_vector_append_uleb(vector, (uint32_t)(distance < 0 ? -2 * distance - 1 : 2 * distance));
}

static void put_map(struct sp_vector *vector, uint64_t map)
{
    unsigned top = nonzero_bytes(map);
    sp_vector_append_byte(vector, top);
    for (; top; top &= top - 1)
        sp_vector_append_byte(vector, map >> (8 * __builtin_ctz(top)) & 0xff);
}

/* Lines that are neither known nor shared, each as the record has it. */
static void put_lines(struct sp_vector *columns, const struct sp_page_view *view, uint64_t map)
{
    FOR_LINES(line, map) {
        if (!view->raw)
            sp_vector_append_byte(&columns[SP_COLUMN_WORDS], view->words[line]);
        if (view->literal_map >> line & 1) {
            sp_vector_append(&columns[SP_COLUMN_LINES], view->content[line], SP_LINE_BYTES);
        } else {
            sp_vector_append(&columns[SP_COLUMN_MASKS], view->masks[line], view->mask_count[line]);
            sp_vector_append(&columns[SP_COLUMN_BYTES], view->bytes[line], view->byte_count[line]);
        }
    }
}

/* Maps of the known lines and of those whose code follows the one before. */
static void put_codes(struct sp_vector *columns, const struct sp_page_view *view, uint16_t *last)
{
    uint64_t next_map = 0;
    FOR_LINES(line, view->code_map) {
        if (view->codes[line] == (uint16_t)(*last + 1))
            next_map |= 1ull << line;
        else
            sp_vector_append(&columns[SP_COLUMN_CODES], &view->codes[line], 2);
        *last = view->codes[line];
    }
    put_map(&columns[SP_COLUMN_MAPS], view->code_map);
    put_map(&columns[SP_COLUMN_MAPS], next_map);
}

static void put_runs(struct sp_vector *column, const struct run *runs, unsigned count, uint64_t here)
{
    sp_vector_append_byte(column, count);
    for (unsigned i = 0; i < count; i++) {
        sp_vector_append_byte(column, runs[i].to);
        sp_vector_append_byte(column, runs[i].count);
        sp_vector_append_byte(column, runs[i].from);
        put_page_near(column, runs[i].page, here);
    }
}

/* ---- one page ---- */

/* The lines of a page that the dictionary does not know, after all of them were looked up. */
static void learn_lines(struct sp_dictionary *dictionary, const struct sp_page_view *view, uint64_t map)
{
    FOR_LINES(line, map)
        sp_dictionary_learn(dictionary, view->content[line]);
}

bool sp_reduce_page(struct sp_pass *pass, struct sp_page_view *view)
{
    struct sp_reducer *reducer = pass->reducer;
    struct sp_vector *columns = reducer->columns;
    struct run runs[SP_LINES_PER_PAGE];
    unsigned run_count = 0;
    uint8_t similar[SP_PAGE_RECORD_MAX + 8];
    size_t similar_bytes = 0;
    uint64_t base = 0;
    bool remembers = view->memory && (reducer->parts.sharing || reducer->parts.similar) && !pass->of_disk;
    bool refers = view->memory && pass->refer != SP_REFER_NONE;

    if (refers && reducer->parts.sharing)
        run_count = find_runs(pass, view, runs);
    if (reducer->dictionary)
        find_codes(reducer, view);
    uint64_t left = view->line_map & ~view->run_map & ~view->code_map;
    unsigned cost = cost_of(view, left);
    if (refers && remembers && reducer->parts.similar && run_count == 0 && cost >= SIMILAR_COST_MIN)
        similar_bytes = find_similar(pass, view, cost, similar, &base);

    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        if (!sp_vector_reserve(&columns[column], SP_PAGE_RECORD_MAX))
            return false;
    if (!pass->of_disk)
        sp_vector_append_uleb(&columns[SP_COLUMN_PAGES], view->gap);
    pass->stats->lines += (unsigned)__builtin_popcountll(view->line_map);
    if (similar_bytes) {
        struct sp_page_view change = {.page = view->page};
        struct sp_record record;
        const char *problem;
        memset(similar + similar_bytes, 0, 8);
        const uint8_t *end = sp_record_parse(SP_CODEC_MASKED, similar, similar + similar_bytes, &record, &problem);
        SP_INVARIANT(end == similar + similar_bytes);
        view_record(&change, &record);
        sp_vector_append_byte(&columns[SP_COLUMN_PAGES], SP_PAGE_SIMILAR);
        put_page_near(&columns[SP_COLUMN_PAGES], base, view->page);
        put_map(&columns[SP_COLUMN_MAPS], change.line_map);
        put_lines(columns, &change, change.line_map);
        pass->stats->similar_pages++;
        pass->referred = true;
    } else {
        unsigned kind = view->raw ? SP_PAGE_RAW : SP_PAGE_MAP;
        sp_vector_append_byte(&columns[SP_COLUMN_PAGES],
                 kind | (view->code_map ? SP_PAGE_HAS_CODES : 0) | (run_count ? SP_PAGE_HAS_RUNS : 0));
        if (!view->raw)
            put_map(&columns[SP_COLUMN_MAPS], view->line_map);
        if (run_count) {
            put_runs(&columns[SP_COLUMN_PAGES], runs, run_count, view->page);
            pass->last_page = runs[run_count - 1].page;
        }
        if (view->code_map)
            put_codes(columns, view, &pass->last_code);
        put_lines(columns, view, left);
        pass->stats->dictionary_lines += (unsigned)__builtin_popcountll(view->code_map);
        pass->stats->shared_lines += (unsigned)__builtin_popcountll(view->run_map);
        pass->referred |= run_count > 0;
        if (reducer->dictionary)
            learn_lines(reducer->dictionary, view, left & view->literal_map);
    }
    if (remembers)
        learn_memory(reducer, view);
    return true;
}

static const char *to_columns(struct sp_pass *pass, const uint8_t *delta, size_t bytes,
                              const struct sp_delta_summary *summary)
{
    const uint8_t *p = delta + SP_DELTA_HEADER_BYTES, *end = delta + bytes - SP_DELTA_PAD_BYTES;
    struct sp_vector *columns = pass->reducer->columns;
    uint64_t page = 0;
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        columns[column].bytes = 0;
    for (uint32_t i = 0; i < summary->pages; i++, page++) {
        uint32_t gap;
        struct sp_record record;
        const char *problem = "a page number is malformed";
        p = get_uleb(p, end, &gap);
        if (!p || (page += gap) >= pass->reducer->pages)
            return problem;
        p = sp_record_parse(summary->codec, p, end, &record, &problem);
        if (!p)
            return problem;
        if (record.form == SP_FORM_ZERO) {
            if (!sp_vector_reserve(&columns[SP_COLUMN_PAGES], 16))
                return "out of memory";
            sp_vector_append_uleb(&columns[SP_COLUMN_PAGES], gap);
            sp_vector_append_byte(&columns[SP_COLUMN_PAGES], SP_PAGE_ZERO);
            continue;
        }
        struct sp_page_view view;
        view.page = page;
        view.gap = gap;
        view.memory = pass->memory ? pass->memory + page * SP_PAGE_BYTES : NULL;
        view_record(&view, &record);
        if (!sp_reduce_page(pass, &view))
            return "out of memory";
    }
    return NULL;
}

static bool put_header(struct sp_vector *out, unsigned flags, uint32_t pages)
{
    if (!sp_vector_reserve(out, 64))
        return false;
    uint8_t begin[4] = {'S', 'R', SP_REDUCED_VERSION, (uint8_t)flags};
    out->bytes = 0;
    sp_vector_append(out, begin, sizeof begin);
    sp_vector_append_uleb(out, pages);
    return true;
}

const char *sp_reduced_put_body(struct sp_reducer *reducer, const uint8_t *body, size_t bytes,
                                enum sp_squeeze method, struct sp_vector *out)
{
    method = sp_squeeze(reducer->squeezer, method, body, bytes, out);
    if (method == SP_SQUEEZE_COUNT || (method == SP_SQUEEZE_NONE && !sp_vector_put(out, body, bytes)))
        return "out of memory";
    out->data[3] |= (uint8_t)(method << SP_REDUCED_METHOD_SHIFT);
    return NULL;
}

static const char *only_compress(struct sp_reducer *reducer, const uint8_t *delta, size_t bytes,
                                 const struct sp_delta_summary *summary, enum sp_squeeze method, struct sp_vector *out)
{
    if (!put_header(out, SP_REDUCED_PLAIN, summary->pages))
        return "out of memory";
    sp_vector_append_uleb(out, (uint32_t)bytes);
    const char *problem = sp_reduced_put_body(reducer, delta, bytes, method, out);
    /* lz4 that does not shrink: as it is. */
    if (!problem && (out->data[3] >> SP_REDUCED_METHOD_SHIFT & SP_REDUCED_METHOD_MASK) == SP_SQUEEZE_NONE)
        out->bytes = 0;
    return problem;
}

const char *sp_reduce(struct sp_reducer *reducer, const uint8_t *delta, size_t bytes, const uint8_t *memory,
                      enum sp_squeeze method, struct sp_vector *out, struct sp_reduce_stats *stats)
{
    struct sp_delta_summary summary;
    const char *problem = sp_delta_check(delta, bytes, reducer->pages, &summary);
    out->bytes = 0;
    if (problem || summary.pages == 0)
        return problem;
    if (summary.codec != SP_CODEC_MASKED && summary.codec != SP_CODEC_LINE) {
        stats->body_bytes += bytes;
        if (reducer->dictionary)
            sp_dictionary_learn_delta(reducer->dictionary, delta, bytes);
        return method == SP_SQUEEZE_NONE ? NULL : only_compress(reducer, delta, bytes, &summary, method, out);
    }
    struct sp_pass pass = {.reducer = reducer,
                           .memory = memory,
                           .stats = stats,
                           .refer = reducer->references ? SP_REFER_BEFORE : SP_REFER_NONE};
    problem = to_columns(&pass, delta, bytes, &summary);
    if (problem)
        return problem;
    if (!put_header(out, summary.whole ? SP_REDUCED_WHOLE : 0, summary.pages))
        return "out of memory";
    reducer->body.bytes = 0;
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++) {
        sp_vector_append_uleb(out, (uint32_t)reducer->columns[column].bytes);
        if (!sp_vector_put(&reducer->body, reducer->columns[column].data, reducer->columns[column].bytes))
            return "out of memory";
    }
    stats->body_bytes += reducer->body.bytes;
    problem = sp_reduced_put_body(reducer, reducer->body.data, reducer->body.bytes, method, out);
    unsigned used = out->data[3] >> SP_REDUCED_METHOD_SHIFT & SP_REDUCED_METHOD_MASK;
    /* A zstd stream cannot be taken back, nor can what refers to memory: the dictionary would have learnt something else. */
    if (!problem && used != SP_SQUEEZE_ZSTD && !pass.referred && out->bytes >= bytes)
        out->bytes = 0;
    return problem;
}

void sp_dictionary_learn_delta(struct sp_dictionary *dictionary, const uint8_t *delta, size_t bytes)
{
    struct sp_delta_summary summary;
    if (sp_delta_check(delta, bytes, UINT64_MAX / SP_PAGE_BYTES, &summary) != NULL)
        return;
    const uint8_t *p = delta + SP_DELTA_HEADER_BYTES, *end = delta + bytes - SP_DELTA_PAD_BYTES;
    for (uint32_t i = 0; i < summary.pages; i++) {
        uint32_t gap;
        struct sp_record record;
        const char *problem;
        p = get_uleb(p, end, &gap);
        p = p ? sp_record_parse(summary.codec, p, end, &record, &problem) : NULL;
        /* Checked above: unless somebody wrote to the delta meanwhile. */
        if (!p)
            return;
        if (record.form == SP_FORM_ZERO || record.form == SP_FORM_RUNS)
            continue;
        struct sp_page_view view;
        view.memory = NULL;
        view_record(&view, &record);
        /* First what is known, then what is learnt: as reduce_page does. */
        uint64_t unknown = 0;
        FOR_LINES(line, view.literal_map)
            if (sp_dictionary_find(dictionary, view.content[line]) < 0)
                unknown |= 1ull << line;
        learn_lines(dictionary, &view, unknown);
    }
}
