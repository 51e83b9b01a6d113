/* See record.h. */
#include "record.h"

#include "bytes.h"
#include "invariant.h"

static const char truncated[] = "a record is cut short";

/* The map of lines behind its first byte `top`, which is not zero. Every byte that `top` names must be non-zero. */
static const uint8_t *parse_line_map(unsigned top, const uint8_t *p, const uint8_t *end, uint64_t *map,
                                     const char **problem)
{
    *map = 0;
    if (end - p < __builtin_popcount(top)) {
        *problem = truncated;
        return NULL;
    }
    for (; top; top &= top - 1) {
        if (*p == 0) {
            *problem = "a line map names an empty byte";
            return NULL;
        }
        *map |= (uint64_t)*p++ << (8 * __builtin_ctz(top));
    }
    return p;
}

static const uint8_t *parse_lines(struct sp_record *record, const uint8_t *p, const uint8_t *end, const char **problem)
{
    size_t bytes = (size_t)__builtin_popcountll(record->masked.line_map) * SP_LINE_BYTES;
    /* All lines of a page: the encoder sends it raw, which is shorter. */
    if (bytes == SP_PAGE_BYTES) {
        *problem = "a record is longer than a raw page";
        return NULL;
    }
    if ((size_t)(end - p) < bytes) {
        *problem = truncated;
        return NULL;
    }
    record->form = SP_FORM_LINES;
    record->data = p;
    return p + bytes;
}

/* Sums over `count` bytes at p, eight at a time; reads up to 7 bytes further. */
struct sums {
    unsigned bits;
    unsigned zero_bytes;
};

static struct sums sum_bytes(const uint8_t *p, size_t count)
{
    struct sums sums = {0, 0};
    size_t at = 0;
    for (; at + 8 <= count; at += 8) {
        uint64_t eight = load64(p + at);
        sums.bits += (unsigned)__builtin_popcountll(eight);
        sums.zero_bytes += 8 - (unsigned)__builtin_popcount(nonzero_bytes(eight));
    }
    if (at < count) {
        unsigned left = (unsigned)(count - at);
        uint64_t some = load64(p + at) & (~0ull >> (64 - 8 * left));
        sums.bits += (unsigned)__builtin_popcountll(some);
        sums.zero_bytes += left - (unsigned)__builtin_popcount(nonzero_bytes(some));
    }
    return sums;
}

/*
 * Whether a line takes 64 bytes or more by its words and changed bytes, which the encoder sends whole. That takes all eight
 * words: seven of them make 7 + 56. Most records have no such line, so this looks for one first.
 */
static bool has_costly_line(const uint8_t *words, size_t lines, const uint8_t *masks, size_t mask_count)
{
    const uint8_t *end = masks + mask_count;
    if (mask_count < 8 || !memchr(words, 0xff, lines))
        return false;
    for (size_t line = 0; line < lines; line++) {
        if (words[line] == 0xff && (SP_INVARIANT(end - masks >= 8), 8 + __builtin_popcountll(load64(masks)) >= SP_LINE_BYTES))
            return true;
        masks += __builtin_popcount(words[line]);
    }
    return false;
}

static const uint8_t *parse_masked(struct sp_record *record, const uint8_t *p, const uint8_t *end, const char **problem)
{
    struct sp_masked_parts *parts = &record->masked;
    size_t lines = (size_t)__builtin_popcountll(parts->line_map);
    if ((size_t)(end - p) < lines)
        goto cut;
    struct sums words = sum_bytes(p, lines);
    parts->words = p;
    p += lines;
    if ((size_t)(end - p) < words.bits)
        goto cut;
    struct sums bytes = sum_bytes(p, words.bits);
    if (bytes.zero_bytes > 0) {
        *problem = "a changed word names no byte";
        return NULL;
    }
    if (has_costly_line(parts->words, lines, p, words.bits)) {
        *problem = "a line costs more by its words than whole";
        return NULL;
    }
    parts->masks = p;
    p += words.bits;
    parts->word_count = words.bits;
    size_t whole_bytes = (size_t)words.zero_bytes * SP_LINE_BYTES;
    if ((size_t)(end - p) < whole_bytes + bytes.bits)
        goto cut;
    parts->lines = p;
    parts->data = p + whole_bytes;
    record->form = SP_FORM_MASKED;
    return parts->data + bytes.bits;
cut:
    *problem = truncated;
    return NULL;
}

/* XBZRLE: pairs of an equal run and a changed run; only the first equal run may be empty. */
static const char *check_runs(const uint8_t *p, const uint8_t *end)
{
    uint32_t at = 0;
    for (bool first = true; p < end; first = false) {
        uint32_t equal, changed;
        if (!(p = get_uleb(p, end, &equal)) || !(p = get_uleb(p, end, &changed)))
            return "a run length is malformed";
        if ((equal == 0 && !first) || changed == 0)
            return "a run is empty";
        if (equal > SP_PAGE_BYTES - at || changed > SP_PAGE_BYTES - at - equal)
            return "a run leaves its page";
        at += equal + changed;
        if ((size_t)(end - p) < changed)
            return truncated;
        p += changed;
    }
    return NULL;
}

static const uint8_t *parse_runs(struct sp_record *record, uint32_t bytes, const uint8_t *p, const uint8_t *end,
                                 const char **problem)
{
    if (bytes >= SP_PAGE_BYTES) {
        *problem = "a record is longer than a raw page";
        return NULL;
    }
    if ((size_t)(end - p) < bytes) {
        *problem = truncated;
        return NULL;
    }
    *problem = check_runs(p, p + bytes);
    if (*problem)
        return NULL;
    record->form = SP_FORM_RUNS;
    record->data = p;
    record->run_bytes = bytes;
    return p + bytes;
}

static const uint8_t *parse_escape(struct sp_record *record, const uint8_t *p, const uint8_t *end, const char **problem)
{
    if (p == end) {
        *problem = truncated;
        return NULL;
    }
    unsigned kind = *p++;
    if (kind == 0) {
        record->form = SP_FORM_ZERO;
        return p;
    }
    if (kind != 1) {
        *problem = "a record is of an unknown kind";
        return NULL;
    }
    if (end - p < SP_PAGE_BYTES) {
        *problem = truncated;
        return NULL;
    }
    record->form = SP_FORM_RAW;
    record->data = p;
    return p + SP_PAGE_BYTES;
}

const uint8_t *sp_record_parse(enum sp_codec codec, const uint8_t *p, const uint8_t *end, struct sp_record *record,
                               const char **problem)
{
    SP_INVARIANT(p <= end);
    SP_INVARIANT(codec < SP_CODEC_COUNT);
    if (p == end) {
        *problem = truncated;
        return NULL;
    }
    if (*p == 0)
        return parse_escape(record, p + 1, end, problem);
    if (codec == SP_CODEC_PAGE) {
        *problem = "a page record does not begin with zero";
        return NULL;
    }
    if (codec == SP_CODEC_XOR_RLE) {
        uint32_t bytes;
        p = get_uleb(p, end, &bytes);
        if (!p) {
            *problem = "a record length is malformed";
            return NULL;
        }
        return parse_runs(record, bytes, p, end, problem);
    }
    unsigned top = *p;
    p = parse_line_map(top, p + 1, end, &record->masked.line_map, problem);
    if (!p)
        return NULL;
    return codec == SP_CODEC_LINE ? parse_lines(record, p, end, problem) : parse_masked(record, p, end, problem);
}
