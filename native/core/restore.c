/*
 * See reduce.h: the receiver's side. Every length, map and reference is checked before it is used; what comes out is checked
 * once more as a delta before it is applied.
 */
#include "reduce.h"

#include "record.h"
#include "restore_parts.h"

static const char cut[] = "it is cut short";
static const char no_memory[] = "out of memory";

struct sp_restorer *sp_restorer_new(void)
{
    struct sp_restorer *restorer = calloc(1, sizeof *restorer);
    if (!restorer)
        return NULL;
    restorer->dictionary = calloc(1, sizeof *restorer->dictionary);
    restorer->unsqueezer = sp_unsqueezer_new();
    if (!restorer->dictionary || !restorer->unsqueezer) {
        sp_restorer_free(restorer);
        return NULL;
    }
    return restorer;
}

void sp_restorer_free(struct sp_restorer *restorer)
{
    if (!restorer)
        return;
    sp_unsqueezer_free(restorer->unsqueezer);
    sp_vector_free(&restorer->body);
    free(restorer->dictionary);
    free(restorer);
}

uint64_t sp_restorer_digest(const struct sp_restorer *restorer)
{
    return restorer->dictionary->digest;
}

void sp_restorer_learn(struct sp_restorer *restorer, const uint8_t *delta, size_t bytes)
{
    sp_dictionary_learn_delta(restorer->dictionary, delta, bytes);
}

/* ---- columns ---- */

/* The next bytes of a column, or NULL. */
const uint8_t *sp_cursor_take(struct sp_cursor *column, size_t bytes)
{
    SP_INVARIANT(column->p <= column->end);
    if ((size_t)(column->end - column->p) < bytes)
        return NULL;
    column->p += bytes;
    return column->p - bytes;
}

static const char *take_map(struct sp_cursor *column, uint64_t *map)
{
    const uint8_t *top = sp_cursor_take(column, 1);
    *map = 0;
    if (!top)
        return cut;
    for (unsigned rest = *top; rest; rest &= rest - 1) {
        const uint8_t *byte = sp_cursor_take(column, 1);
        if (!byte)
            return cut;
        if (*byte == 0)
            return "a map names an empty byte";
        *map |= (uint64_t)*byte << (8 * __builtin_ctz(rest));
    }
    return NULL;
}

static bool take_page_near(struct sp_cursor *column, uint64_t here, uint64_t pages, uint64_t *page)
{
    uint32_t value;
    column->p = get_uleb(column->p, column->end, &value);
    if (!column->p) {
        column->p = column->end;
        return false;
    }
    *page = value & 1 ? here - (value + 1ull) / 2 : here + value / 2;
    return *page < pages;
}

/* ---- one page ---- */

#define FOR_LINES(line, map)                                                                                            \
    for (uint64_t rest_ = (map), line = 0; rest_ && (line = (uint64_t)__builtin_ctzll(rest_), true); rest_ &= rest_ - 1)

/* Of writes to a disk: the image is read later, when it is of the right moment. */
static bool note_fill(struct sp_source *source, uint64_t page, unsigned to, unsigned from, unsigned lines)
{
    const struct sp_fill fill = {source->at + to * SP_LINE_BYTES, (uint32_t)page, (uint16_t)from, (uint16_t)lines};
    return sp_vector_put(source->fills, &fill, sizeof fill);
}

static const char *read_runs(struct sp_source *source, uint64_t here, struct sp_content *content)
{
    struct sp_cursor *column = &source->columns[SP_COLUMN_PAGES];
    const uint8_t *count = sp_cursor_take(column, 1);
    if (count && *count == 0)
        return "a page has no shared block";
    for (unsigned i = 0; count && i < *count; i++) {
        const uint8_t *run = sp_cursor_take(column, 3);
        uint64_t page;
        if (!run || !take_page_near(column, here, source->image_pages, &page))
            return "a shared block lies outside the image";
        unsigned to = run[0], lines = run[1], from = run[2];
        if (lines == 0 || to + lines > SP_LINES_PER_PAGE || from + lines > SP_LINES_PER_PAGE)
            return "a shared block leaves its page";
        uint64_t map = (lines == SP_LINES_PER_PAGE ? ~0ull : (1ull << lines) - 1) << to;
        if ((content->line_map & map) != map || (content->whole_map & map))
            return "a shared block is not part of the change";
        content->whole_map |= map;
        SP_INVARIANT(page < source->image_pages);
        SP_INVARIANT(to + lines <= SP_LINES_PER_PAGE && from + lines <= SP_LINES_PER_PAGE);
        source->last_page = page;
        if (source->fills) {
            if (!note_fill(source, page, to, from, lines))
                return no_memory;
            continue;
        }
        memcpy(content->lines[to], source->image + page * SP_PAGE_BYTES + from * SP_LINE_BYTES,
               (size_t)lines * SP_LINE_BYTES);
    }
    return count ? NULL : cut;
}

static const char *read_codes(struct sp_source *source, struct sp_content *content)
{
    uint64_t code_map, next_map;
    const char *problem = take_map(&source->columns[SP_COLUMN_MAPS], &code_map);
    if (!problem)
        problem = take_map(&source->columns[SP_COLUMN_MAPS], &next_map);
    if (problem)
        return problem;
    if (code_map == 0)
        return "a page has no known line";
    if ((code_map & content->line_map) != code_map || (code_map & content->whole_map) || (next_map & ~code_map))
        return "a known line is not part of the change";
    FOR_LINES(line, code_map) {
        uint16_t code = (uint16_t)(source->last_code + 1);
        if (!(next_map >> line & 1)) {
            const uint8_t *given = sp_cursor_take(&source->columns[SP_COLUMN_CODES], 2);
            if (!given)
                return cut;
            code = (uint16_t)(given[0] | given[1] << 8);
        }
        if (!sp_dictionary_line(source->dictionary, code, content->lines[line]))
            return "a line is not known here";
        source->last_code = code;
    }
    content->whole_map |= code_map;
    return NULL;
}

/* The lines that are neither shared nor known; `raw`: all of them whole, without saying so. */
static const char *read_lines(struct sp_source *source, bool raw, struct sp_content *content, uint64_t *literal_map)
{
    struct sp_cursor *columns = source->columns;
    content->masks = columns[SP_COLUMN_MASKS].p;
    content->bytes = columns[SP_COLUMN_BYTES].p;
    content->mask_count = content->byte_count = 0;
    *literal_map = 0;
    FOR_LINES(line, content->line_map & ~content->whole_map) {
        const uint8_t *words = raw ? NULL : sp_cursor_take(&columns[SP_COLUMN_WORDS], 1);
        if (!raw && !words)
            return cut;
        if (raw || *words == 0) {
            const uint8_t *whole = sp_cursor_take(&columns[SP_COLUMN_LINES], SP_LINE_BYTES);
            if (!whole)
                return cut;
            memcpy(content->lines[line], whole, SP_LINE_BYTES);
            *literal_map |= 1ull << line;
            continue;
        }
        content->words[line] = *words;
        unsigned count = (unsigned)__builtin_popcount(*words), byte_count = 0;
        const uint8_t *masks = sp_cursor_take(&columns[SP_COLUMN_MASKS], count);
        for (unsigned i = 0; masks && i < count; i++) {
            if (masks[i] == 0)
                return "a changed word names no byte";
            byte_count += (unsigned)__builtin_popcount(masks[i]);
        }
        if (!masks)
            return cut;
        /* The format's own rule, on which the room of a page depends: such a line goes whole. */
        if (count + byte_count >= SP_LINE_BYTES)
            return "a line costs more by its words than whole";
        if (!sp_cursor_take(&columns[SP_COLUMN_BYTES], byte_count))
            return cut;
        content->mask_count += count;
        content->byte_count += byte_count;
    }
    content->whole_map |= *literal_map;
    return NULL;
}

const char *sp_restore_lines(struct sp_source *source, unsigned lines, struct sp_vector *out)
{
    SP_INVARIANT(lines > 0 && lines <= SP_LINES_PER_PAGE);
    struct sp_content content = {.line_map = ~0ull >> (SP_LINES_PER_PAGE - lines)};
    uint64_t literal_map;
    const char *problem = NULL;
    const uint8_t *kind = sp_cursor_take(&source->columns[SP_COLUMN_PAGES], 1);
    if (!kind)
        return cut;
    unsigned form = *kind & 7, has = *kind & ~7u;
    if (!(form == SP_PAGE_ZERO && !has) &&
        (form != SP_PAGE_RAW || (has & ~(SP_PAGE_HAS_CODES | SP_PAGE_HAS_RUNS))))
        return "a piece of a write is of an unknown kind";
    if (form == SP_PAGE_RAW) {
        if (has & SP_PAGE_HAS_RUNS)
            problem = read_runs(source, source->last_page, &content);
        if (!problem && (has & SP_PAGE_HAS_CODES))
            problem = read_codes(source, &content);
        if (!problem)
            problem = read_lines(source, true, &content, &literal_map);
        if (problem)
            return problem;
        FOR_LINES(line, literal_map)
            sp_dictionary_learn(source->dictionary, content.lines[line]);
    }
    return sp_vector_put(out, content.lines, (size_t)lines * SP_LINE_BYTES) ? NULL : no_memory;
}

static void put_raw(struct sp_vector *out, const uint8_t *page)
{
    sp_vector_append(out, (uint8_t[]){0, 1}, 2);
    sp_vector_append(out, page, SP_PAGE_BYTES);
}

static void put_masked(struct sp_vector *out, const struct sp_content *content)
{
    if (content->whole_map == ~0ull)
        return put_raw(out, content->lines[0]);
    SP_INVARIANT(content->mask_count <= SP_WORDS_PER_PAGE);
    SP_INVARIANT(content->mask_count + content->byte_count <= SP_LINES_PER_PAGE * SP_LINE_BYTES);
    unsigned top = nonzero_bytes(content->line_map);
    sp_vector_append_byte(out, top);
    for (; top; top &= top - 1)
        sp_vector_append_byte(out, content->line_map >> (8 * __builtin_ctz(top)) & 0xff);
    FOR_LINES(line, content->line_map)
        sp_vector_append_byte(out, content->whole_map >> line & 1 ? 0 : content->words[line]);
    sp_vector_append(out, content->masks, content->mask_count);
    FOR_LINES(whole, content->whole_map)
        sp_vector_append(out, content->lines[whole], SP_LINE_BYTES);
    sp_vector_append(out, content->bytes, content->byte_count);
}

/* The other page with the named bytes replaced. The columns are followed by room that may be read. */
static void put_similar(struct sp_vector *out, const uint8_t *base, const struct sp_content *content)
{
    uint8_t page[SP_PAGE_BYTES], words[SP_LINES_PER_PAGE], lines[SP_PAGE_BYTES];
    struct sp_masked_parts parts = {.line_map = content->line_map,
                                    .words = words,
                                    .masks = content->masks,
                                    .word_count = content->mask_count,
                                    .lines = lines,
                                    .data = content->bytes};
    unsigned changed = 0, whole = 0;
    SP_INVARIANT(content->mask_count <= SP_WORDS_PER_PAGE);
    memcpy(page, base, SP_PAGE_BYTES);
    FOR_LINES(line, content->line_map) {
        bool is_whole = content->whole_map >> line & 1;
        words[changed++] = is_whole ? 0 : content->words[line];
        if (is_whole)
            memcpy(lines + (size_t)whole++ * SP_LINE_BYTES, content->lines[line], SP_LINE_BYTES);
    }
    sp_kernels_chosen()->apply_masked(page, &parts);
    put_raw(out, page);
}

static const char *restore_page(struct sp_source *source, uint64_t page, struct sp_vector *out)
{
    struct sp_content content = {0};
    uint64_t base = 0, literal_map;
    const char *problem = NULL;
    const uint8_t *kind = sp_cursor_take(&source->columns[SP_COLUMN_PAGES], 1);
    if (!kind)
        return cut;
    unsigned form = *kind & 7, has = *kind & ~7u;
    if (form == SP_PAGE_ZERO && !has) {
        sp_vector_append(out, (uint8_t[]){0, 0}, 2);
        return NULL;
    }
    if (form == SP_PAGE_ZERO || form > SP_PAGE_SIMILAR || (has & ~(SP_PAGE_HAS_CODES | SP_PAGE_HAS_RUNS)) ||
        (form == SP_PAGE_SIMILAR && has))
        return "a page is of an unknown kind";
    if (form == SP_PAGE_SIMILAR &&
        !take_page_near(&source->columns[SP_COLUMN_PAGES], page, source->image_pages, &base))
        return "a similar page lies outside the image";
    content.line_map = ~0ull;
    if (form != SP_PAGE_RAW)
        problem = take_map(&source->columns[SP_COLUMN_MAPS], &content.line_map);
    if (problem)
        return problem;
    if (content.line_map == 0)
        return "a page has no change";
    if (has & SP_PAGE_HAS_RUNS)
        problem = read_runs(source, page, &content);
    if (!problem && (has & SP_PAGE_HAS_CODES))
        problem = read_codes(source, &content);
    if (!problem)
        problem = read_lines(source, form == SP_PAGE_RAW, &content, &literal_map);
    if (problem)
        return problem;
    if (form == SP_PAGE_SIMILAR) {
        SP_INVARIANT(base < source->image_pages);
        put_similar(out, source->image + base * SP_PAGE_BYTES, &content);
        return NULL;
    }
    size_t before = out->bytes;
    put_masked(out, &content);
    SP_INVARIANT(out->bytes - before <= SP_RECORD_BYTES_MAX);
    FOR_LINES(line, literal_map)
        sp_dictionary_learn(source->dictionary, content.lines[line]);
    return NULL;
}

static const char *from_columns(struct sp_source *source, uint32_t pages, size_t bytes_max, struct sp_vector *out)
{
    struct sp_cursor *names = &source->columns[SP_COLUMN_PAGES];
    uint64_t page = 0;
    for (uint32_t i = 0; i < pages; i++, page++) {
        uint32_t gap;
        const uint8_t *p = get_uleb(names->p, names->end, &gap);
        if (!p)
            return "a page number is malformed";
        names->p = p;
        page += gap;
        if (page >= source->image_pages)
            return "a page lies outside the image";
        if (!sp_vector_reserve(out, SP_ULEB_BYTES_MAX + SP_RECORD_BYTES_MAX))
            return no_memory;
        sp_vector_append_uleb(out, gap);
        const char *problem = restore_page(source, page, out);
        if (problem)
            return problem;
        if (out->bytes > bytes_max)
            return "it becomes larger than is accepted";
    }
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        if (source->columns[column].p != source->columns[column].end)
            return "bytes follow the last page";
    return NULL;
}

static const char *seal(struct sp_vector *out, bool whole, uint32_t pages)
{
    SP_INVARIANT(out->bytes >= SP_DELTA_HEADER_BYTES);
    SP_INVARIANT(out->bytes <= SP_DELTA_BYTES_MAX);
    if (!sp_vector_reserve(out, SP_DELTA_PAD_BYTES))
        return no_memory;
    uint8_t header[8] = {'S', 'D', SP_DELTA_VERSION, SP_CODEC_MASKED, whole, 0, 0, 0};
    memcpy(out->data, header, sizeof header);
    store32(out->data + 8, pages);
    store32(out->data + 12, (uint32_t)(out->bytes - SP_DELTA_HEADER_BYTES));
    sp_vector_append(out, (uint8_t[SP_DELTA_PAD_BYTES]){0}, SP_DELTA_PAD_BYTES);
    return NULL;
}

/* Only deltas without lines to look up go plain. What else is wrong with one, sp_delta_check says. */
static const char *check_plain(const struct sp_vector *body, uint32_t pages)
{
    if (body->bytes < SP_DELTA_HEADER_BYTES + SP_DELTA_PAD_BYTES)
        return cut;
    if (body->data[3] != SP_CODEC_PAGE && body->data[3] != SP_CODEC_XOR_RLE)
        return "it is plain, and of a codec that has lines";
    return load32(body->data + 8) == pages ? NULL : "it has another number of pages than it says";
}

const char *sp_restorer_unpack(struct sp_restorer *restorer, unsigned method, const uint8_t *packed, size_t bytes,
                               size_t total)
{
    struct sp_vector *body = &restorer->body;
    if (total > SP_REDUCED_BODY_BYTES_MAX)
        return "it is larger than is accepted";
    body->bytes = 0;
    if (!sp_vector_reserve(body, total + 8))
        return no_memory;
    if (!sp_unsqueeze(restorer->unsqueezer, (enum sp_squeeze)method, packed, bytes, body->data, total))
        return "its compressed bytes are damaged";
    memset(body->data + total, 0, 8);
    body->bytes = total;
    return NULL;
}

static const char *unpack(struct sp_restorer *restorer, const uint8_t *reduced, size_t bytes, size_t bytes_max)
{
    const uint8_t *p = reduced, *end = reduced + bytes;
    size_t total = 0;
    if (bytes < 4 || p[0] != 'S' || p[1] != 'R')
        return "it is not a reduced delta";
    if (p[2] != SP_REDUCED_VERSION)
        return "it is of an unknown version";
    unsigned flags = p[3], method = flags >> SP_REDUCED_METHOD_SHIFT & SP_REDUCED_METHOD_MASK;
    bool plain = flags & SP_REDUCED_PLAIN;
    if (flags > 15 || method >= SP_SQUEEZE_COUNT || (plain && (flags & SP_REDUCED_WHOLE)))
        return "it has unknown flags";
    if (plain && method == SP_SQUEEZE_NONE)
        return "it is a delta as it is, and not compressed";
    p = get_uleb(p + 4, end, &restorer->pages);
    for (unsigned column = 0; p && column < (plain ? 1 : SP_COLUMN_COUNT); column++) {
        p = get_uleb(p, end, &restorer->lengths[column]);
        total += p ? restorer->lengths[column] : 0;
    }
    if (!p)
        return cut;
    if (restorer->pages == 0)
        return "it has no page";
    const char *problem = total > bytes_max ? "it is larger than is accepted"
                                            : sp_restorer_unpack(restorer, method, p, (size_t)(end - p), total);
    if (problem)
        return problem;
    if (plain) {
        problem = check_plain(&restorer->body, restorer->pages);
        if (problem)
            return problem;
    }
    restorer->flags = flags;
    restorer->unpacked = true;
    return NULL;
}

static struct sp_source source_of(const struct sp_restorer *restorer, const uint8_t *image, uint64_t image_pages)
{
    struct sp_source source = {.dictionary = restorer->dictionary, .image = image, .image_pages = image_pages};
    const uint8_t *at = restorer->body.data, *end = at + restorer->body.bytes;
    SP_INVARIANT(!(restorer->flags & SP_REDUCED_PLAIN));
    for (unsigned column = 0; column < SP_COLUMN_COUNT; at += restorer->lengths[column++]) {
        SP_INVARIANT(restorer->lengths[column] <= (size_t)(end - at));
        source.columns[column] = (struct sp_cursor){at, at + restorer->lengths[column]};
    }
    SP_INVARIANT(at == end);
    return source;
}

const char *sp_restore(struct sp_restorer *restorer, const uint8_t *reduced, size_t bytes, const uint8_t *image,
                       uint64_t image_pages, size_t bytes_max, struct sp_vector *out)
{
    out->bytes = 0;
    /* Lengths in a delta have 32 bits. */
    if (bytes_max > SP_DELTA_BYTES_MAX - SP_PAGE_RECORD_MAX)
        bytes_max = SP_DELTA_BYTES_MAX - SP_PAGE_RECORD_MAX;
    const char *problem = restorer->unpacked ? NULL : unpack(restorer, reduced, bytes, bytes_max);
    restorer->unpacked = false;
    if (problem)
        return problem;
    if (restorer->flags & SP_REDUCED_PLAIN) {
        struct sp_vector made = restorer->body;
        restorer->body = *out;
        *out = made;
        sp_restorer_learn(restorer, out->data, out->bytes);
        return NULL;
    }
    struct sp_source source = source_of(restorer, image, image_pages);
    if (!sp_vector_reserve(out, SP_DELTA_HEADER_BYTES))
        return no_memory;
    out->bytes = SP_DELTA_HEADER_BYTES;
    problem = from_columns(&source, restorer->pages, bytes_max, out);
    return problem ? problem : seal(out, restorer->flags & SP_REDUCED_WHOLE, restorer->pages);
}

/* The names of one page, of which nothing but its references is looked at; see restore_page and read_runs. */
static const char *list_page(struct sp_source *source, uint64_t here, struct sp_vector *out)
{
    struct sp_cursor *column = &source->columns[SP_COLUMN_PAGES];
    const uint8_t *kind = sp_cursor_take(column, 1);
    if (!kind)
        return cut;
    bool similar = (*kind & 7) == SP_PAGE_SIMILAR;
    const uint8_t *runs = NULL;
    if (!similar && *kind & SP_PAGE_HAS_RUNS && !(runs = sp_cursor_take(column, 1)))
        return cut;
    unsigned count = similar ? 1 : runs ? *runs : 0;
    if (!sp_vector_reserve(out, count * sizeof(uint32_t)))
        return no_memory;
    for (unsigned i = 0; i < count; i++) {
        uint64_t page;
        if ((!similar && !sp_cursor_take(column, 3)) || !take_page_near(column, here, source->image_pages, &page))
            return "it refers to what lies outside the image";
        SP_INVARIANT(page <= UINT32_MAX);
        sp_vector_append(out, &(uint32_t){(uint32_t)page}, sizeof(uint32_t));
    }
    return NULL;
}

const char *sp_restore_references(struct sp_restorer *restorer, const uint8_t *reduced, size_t bytes,
                                  uint64_t image_pages, size_t bytes_max, struct sp_vector *out)
{
    out->bytes = 0;
    const char *problem = unpack(restorer, reduced, bytes, bytes_max);
    if (problem || restorer->flags & SP_REDUCED_PLAIN)
        return problem;
    struct sp_source source = source_of(restorer, NULL, image_pages);
    struct sp_cursor *names = &source.columns[SP_COLUMN_PAGES];
    uint64_t page = 0;
    for (uint32_t i = 0; i < restorer->pages && !problem; i++, page++) {
        uint32_t gap;
        names->p = get_uleb(names->p, names->end, &gap);
        if (!names->p)
            return "a page number is malformed";
        page += gap;
        problem = list_page(&source, page, out);
    }
    return problem;
}
