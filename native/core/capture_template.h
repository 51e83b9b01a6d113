/*
 * One page, every codec: included once per CPU path, after that path defined its primitives:
 *
 *   uint64_t lines_differing(a, b)       map of the lines in which two pages differ
 *   uint64_t lines_nonzero(a)            map of the lines that are not all zero
 *   uint64_t line_take(ram, shadow)      copies a line to the shadow; returns the map of bytes that differed
 *   uint64_t line_nonzero(line)          map of the bytes that are not zero
 *   void     line_copy(to, from)         64 bytes
 *   uint64_t gather_bits(x, mask)        pext
 *   uint64_t spread_bits(byte)           0xff in byte i for every set bit i
 *   void     put_word_indexes(to, words, line)   index in the page of each word of a line; writes eight
 *
 * A guest may write while its page is encoded. `line_take` compares and stores the same registers, and everything that
 * is emitted is then read from the shadow, which nobody else writes: frame and shadow agree whatever the guest does.
 */
#include "bytes.h"
#include "kernels.h"

/* Constants such as `whole` must reach the loops; left to itself the compiler shares one body. */
#define INLINE static inline __attribute__((always_inline))

enum { KIND_ZERO = 0, KIND_RAW = 1, RAW_RECORD_BYTES = 2 + SP_PAGE_BYTES };

/* What changed in one page. `bytes[line]` is valid for lines in the map only. */
struct change {
    uint64_t line_map;
    unsigned byte_count;
    uint64_t bytes[SP_LINES_PER_PAGE];
};

/* Compares and updates the shadow. The second look at a line may find it reverted: its byte map is then empty. */
INLINE void take_page(const uint8_t *ram, uint8_t *shadow, bool whole, struct change *change,
                             struct sp_capture_stats *stats)
{
    unsigned changed_bytes = 0;
    if (whole) {
        /* A zero page leaves a shadow that was never touched without memory of its own. */
        if (lines_nonzero(ram) == 0) {
            if (lines_nonzero(shadow) != 0)
                memset(shadow, 0, SP_PAGE_BYTES);
        } else {
            for (unsigned line = 0; line < SP_LINES_PER_PAGE; line++)
                line_copy(shadow + line * SP_LINE_BYTES, ram + line * SP_LINE_BYTES);
        }
        /* From here on only the shadow is read: the compiler must not go back to the guest's memory. */
        __asm__ volatile("" ::: "memory");
        change->line_map = lines_nonzero(shadow);
        for (uint64_t rest = change->line_map; rest; rest &= rest - 1) {
            unsigned line = (unsigned)__builtin_ctzll(rest);
            change->bytes[line] = line_nonzero(shadow + line * SP_LINE_BYTES);
            changed_bytes += (unsigned)__builtin_popcountll(change->bytes[line]);
        }
    } else {
        uint64_t map = lines_differing(ram, shadow);
        change->line_map = map;
        for (uint64_t rest = map; rest; rest &= rest - 1) {
            unsigned line = (unsigned)__builtin_ctzll(rest);
            uint64_t bytes = line_take(ram + line * SP_LINE_BYTES, shadow + line * SP_LINE_BYTES);
            change->bytes[line] = bytes;
            changed_bytes += (unsigned)__builtin_popcountll(bytes);
            if (__builtin_expect(bytes == 0, 0))
                change->line_map &= ~(1ull << line);
        }
    }
    change->byte_count = changed_bytes;
    stats->changed_pages += whole || change->line_map != 0;
    stats->changed_lines += (unsigned)__builtin_popcountll(change->line_map);
    stats->changed_bytes += changed_bytes;
}

INLINE bool page_is_zero(const uint8_t *shadow, const struct change *change, bool whole)
{
    if (whole)
        return change->line_map == 0;
    /* Most pages fail at their first changed line, which is in the cache. */
    unsigned line = (unsigned)__builtin_ctzll(change->line_map);
    return line_nonzero(shadow + line * SP_LINE_BYTES) == 0 && lines_nonzero(shadow) == 0;
}

static inline size_t put_zero(uint8_t *out)
{
    out[0] = 0;
    out[1] = KIND_ZERO;
    return 2;
}

static inline size_t put_raw(uint8_t *out, const uint8_t *shadow)
{
    out[0] = 0;
    out[1] = KIND_RAW;
    memcpy(out + 2, shadow, SP_PAGE_BYTES);
    return RAW_RECORD_BYTES;
}

/* The map of lines: one byte naming its non-zero bytes, then those. Writes up to 9 bytes, returns how many count. */
static inline unsigned put_line_map(uint8_t *out, uint64_t map)
{
    unsigned top = nonzero_bytes(map);
    out[0] = (uint8_t)top;
    store64(out + 1, gather_bits(map, spread_bits(top)));
    return 1 + (unsigned)__builtin_popcount(top);
}

INLINE size_t encode_line(const uint8_t *shadow, const struct change *change, uint8_t *out)
{
    size_t at = put_line_map(out, change->line_map);
    if (at + (size_t)__builtin_popcountll(change->line_map) * SP_LINE_BYTES >= RAW_RECORD_BYTES)
        return put_raw(out, shadow);
    for (uint64_t rest = change->line_map; rest; rest &= rest - 1, at += SP_LINE_BYTES)
        line_copy(out + at, shadow + (size_t)__builtin_ctzll(rest) * SP_LINE_BYTES);
    return at;
}

/*
 * Levels: map of lines, then for each changed line a byte of changed words (0: the whole line), then for each changed
 * word a byte of changed bytes, then whole lines, then packed bytes. The loops run over lines, then over words, with no
 * branch that depends on the data: what changed is random, and a misprediction costs more than the work it skips.
 */
INLINE size_t encode_masked(const uint8_t *shadow, const struct change *change, uint8_t *out)
{
    uint16_t index[SP_WORDS_PER_PAGE + 8]; /* of each changed word; put_word_indexes writes eight at a time */
    uint64_t line_map = change->line_map, whole_map = 0;
    size_t line_count = (size_t)__builtin_popcountll(line_map), word_total = 0, packed_bytes = 0;
    uint8_t *words = out + put_line_map(out, line_map);
    uint8_t *masks = words + line_count;
    /* A lower bound of the length: each line takes at least its changed bytes. */
    if ((size_t)(masks - out) + change->byte_count >= RAW_RECORD_BYTES)
        return put_raw(out, shadow);
    for (uint64_t rest = line_map; rest; rest &= rest - 1) {
        unsigned line = (unsigned)__builtin_ctzll(rest);
        uint64_t bytes = change->bytes[line];
        unsigned changed = nonzero_bytes(bytes);
        unsigned byte_count = (unsigned)__builtin_popcountll(bytes);
        bool whole = (unsigned)__builtin_popcount(changed) + byte_count >= SP_LINE_BYTES;
        changed = whole ? 0 : changed;
        packed_bytes += whole ? 0 : byte_count;
        whole_map |= (uint64_t)whole << line;
        *words++ = (uint8_t)changed;
        store64(masks + word_total, gather_bits(bytes, spread_bits(changed)));
        put_word_indexes(index + word_total, changed, line);
        word_total += (unsigned)__builtin_popcount(changed);
    }
    uint8_t *data = masks + word_total;
    if ((size_t)(data - out) + (size_t)__builtin_popcountll(whole_map) * SP_LINE_BYTES + packed_bytes >= RAW_RECORD_BYTES)
        return put_raw(out, shadow);
    for (uint64_t rest = whole_map; rest; rest &= rest - 1, data += SP_LINE_BYTES)
        line_copy(data, shadow + (size_t)__builtin_ctzll(rest) * SP_LINE_BYTES);
    for (size_t i = 0; i < word_total; i++) {
        store64(data, gather_bits(load64(shadow + 8 * (size_t)index[i]), spread_bits(masks[i])));
        data += __builtin_popcount(masks[i]);
    }
    return (size_t)(data - out);
}

/* First byte at or after `from` whose changed state is `state`; SP_PAGE_BYTES when there is none. */
static inline unsigned next_changed(const struct change *change, unsigned from)
{
    unsigned line = from / SP_LINE_BYTES;
    if (line >= SP_LINES_PER_PAGE)
        return SP_PAGE_BYTES;
    if (change->line_map >> line & 1) {
        uint64_t bits = change->bytes[line] >> (from % SP_LINE_BYTES);
        if (bits)
            return from + (unsigned)__builtin_ctzll(bits);
    }
    uint64_t later = change->line_map & (~0ull << line) & ~(1ull << line);
    if (!later)
        return SP_PAGE_BYTES;
    line = (unsigned)__builtin_ctzll(later);
    return line * SP_LINE_BYTES + (unsigned)__builtin_ctzll(change->bytes[line]);
}

static inline unsigned next_unchanged(const struct change *change, unsigned from)
{
    for (unsigned line = from / SP_LINE_BYTES; line < SP_LINES_PER_PAGE; line++, from = line * SP_LINE_BYTES) {
        if (!(change->line_map >> line & 1))
            return from;
        uint64_t bits = ~change->bytes[line] >> (from % SP_LINE_BYTES);
        if (bits)
            return from + (unsigned)__builtin_ctzll(bits);
    }
    return SP_PAGE_BYTES;
}

static inline unsigned uleb_bytes(unsigned value)
{
    return value < 0x80 ? 1 : 2;
}

/* Runs of equal and changed bytes. Returns the length, or -1 when it would reach the size of a page. */
static inline int put_xor_rle(const struct change *change, const uint8_t *page, uint8_t *out)
{
    uint8_t *p = out;
    unsigned at = 0;
    for (unsigned start = next_changed(change, 0); start < SP_PAGE_BYTES; start = next_changed(change, at)) {
        unsigned end = next_unchanged(change, start);
        unsigned length = end - start;
        if ((size_t)(p - out) + uleb_bytes(start - at) + uleb_bytes(length) + length >= SP_PAGE_BYTES)
            return -1;
        p = put_uleb(p, start - at);
        p = put_uleb(p, length);
        if (length <= 16)
            for (unsigned i = 0; i < length; i++)
                p[i] = page[start + i];
        else
            memcpy(p, page + start, length);
        p += length;
        at = end;
    }
    return (int)(p - out);
}

INLINE size_t encode_xor_rle(const uint8_t *shadow, const struct change *change, uint8_t *out)
{
    /* The length comes first and has one or two bytes: encode behind two, move when one is enough. */
    int length = put_xor_rle(change, shadow, out + 2);
    if (length < 0)
        return put_raw(out, shadow);
    if (length < 0x80) {
        out[0] = (uint8_t)length;
        memmove(out + 1, out + 2, (size_t)length);
        return 1 + (size_t)length;
    }
    put_uleb(out, (uint32_t)length);
    return 2 + (size_t)length;
}

/* `page` is what Remus sends: every dirty page whole, whether its content changed or not. */
INLINE size_t capture_page(const uint8_t *ram, uint8_t *shadow, bool whole, uint8_t *out,
                                  struct sp_capture_stats *stats)
{
    struct change change;
    take_page(ram, shadow, whole, &change, stats);
    if (lines_nonzero(shadow) == 0)
        return put_zero(out);
    return put_raw(out, shadow);
}

#define SP_DEFINE_CAPTURE(codec)                                                                                        \
    INLINE size_t capture_##codec(const uint8_t *ram, uint8_t *shadow, bool whole, uint8_t *out,                 \
                                         struct sp_capture_stats *stats)                                                \
    {                                                                                                                   \
        struct change change;                                                                                           \
        take_page(ram, shadow, whole, &change, stats);                                                                  \
        if (!whole && change.line_map == 0)                                                                             \
            return 0;                                                                                                   \
        if (page_is_zero(shadow, &change, whole))                                                                       \
            return put_zero(out);                                                                                       \
        return encode_##codec(shadow, &change, out);                                                                    \
    }

SP_DEFINE_CAPTURE(line)
SP_DEFINE_CAPTURE(xor_rle)
SP_DEFINE_CAPTURE(masked)

/* The template is compiled twice per codec, so that `whole` is a constant inside each. */
#define SP_DEFINE_ENTRY(codec)                                                                                          \
    static size_t entry_##codec(const uint8_t *ram, uint8_t *shadow, uint8_t *out, struct sp_capture_stats *stats)      \
    {                                                                                                                   \
        return capture_##codec(ram, shadow, false, out, stats);                                                         \
    }                                                                                                                   \
    static size_t entry_##codec##_whole(const uint8_t *ram, uint8_t *shadow, uint8_t *out,                              \
                                        struct sp_capture_stats *stats)                                                 \
    {                                                                                                                   \
        return capture_##codec(ram, shadow, true, out, stats);                                                          \
    }

SP_DEFINE_ENTRY(page)
SP_DEFINE_ENTRY(line)
SP_DEFINE_ENTRY(xor_rle)
SP_DEFINE_ENTRY(masked)

/* Every bit of a group of `block_lines` is set when one of them was. */
static inline uint64_t whole_blocks(uint64_t map, unsigned block_lines)
{
    for (unsigned shift = 1; shift < block_lines; shift *= 2)
        map |= map >> shift;
    map &= block_lines == 64 ? 1 : ~0ull / ((1ull << block_lines) - 1);
    for (unsigned shift = 1; shift < block_lines; shift *= 2)
        map |= map << shift;
    return map;
}

static size_t entry_encode_lines(const uint8_t *page, uint64_t line_map, uint8_t *out)
{
    if (lines_nonzero(page) == 0)
        return put_zero(out);
    struct change change = {.line_map = line_map};
    return encode_line(page, &change, out);
}

static size_t entry_blocks(const uint8_t *ram, uint8_t *shadow, unsigned block_lines, uint8_t *out,
                           struct sp_capture_stats *stats)
{
    struct change change;
    take_page(ram, shadow, false, &change, stats);
    if (change.line_map == 0)
        return 0;
    return entry_encode_lines(shadow, whole_blocks(change.line_map, block_lines), out);
}

/* XBZRLE alone, for comparison and for the published vector: does not touch the old page. */
static int entry_xbzrle(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out)
{
    struct change change;
    change.line_map = lines_differing(new_page, old_page);
    for (uint64_t rest = change.line_map; rest; rest &= rest - 1) {
        unsigned line = (unsigned)__builtin_ctzll(rest);
        change.bytes[line] = line_differing(new_page + line * SP_LINE_BYTES, old_page + line * SP_LINE_BYTES);
    }
    return put_xor_rle(&change, new_page, out);
}

/* What a recording keeps of a page: its changed lines and bytes. With `update` the shadow follows. */
static unsigned entry_changes(const uint8_t *ram, uint8_t *shadow, bool update, uint64_t *line_map)
{
    struct sp_capture_stats unused = {0};
    struct change change;
    if (update) {
        take_page(ram, shadow, false, &change, &unused);
    } else {
        change.line_map = lines_differing(ram, shadow);
        change.byte_count = 0;
        for (uint64_t rest = change.line_map; rest; rest &= rest - 1) {
            size_t at = (size_t)__builtin_ctzll(rest) * SP_LINE_BYTES;
            change.byte_count += (unsigned)__builtin_popcountll(line_differing(ram + at, shadow + at));
        }
    }
    *line_map = change.line_map;
    return change.byte_count;
}

#define SP_KERNEL_ENTRIES                                                                                               \
    .capture = {[SP_CODEC_PAGE] = {entry_page, entry_page_whole},                                                       \
                [SP_CODEC_LINE] = {entry_line, entry_line_whole},                                                       \
                [SP_CODEC_XOR_RLE] = {entry_xor_rle, entry_xor_rle_whole},                                              \
                [SP_CODEC_MASKED] = {entry_masked, entry_masked_whole}},                                                \
    .capture_blocks = entry_blocks, .encode_lines = entry_encode_lines,                                                 \
    .apply_masked = entry_apply_masked, .apply_lines = entry_apply_lines, .xbzrle_encode = entry_xbzrle,                \
    .changed_lines = lines_differing, .changes = entry_changes
