/*
 * Writing a checked record into a page: included once per CPU path, after `line_copy`, `spread_bits` and
 * `scatter_bits(x, mask)` (pdep) are defined. Only bytes named by the masks are changed.
 */
static void entry_apply_lines(uint8_t *page, uint64_t line_map, const uint8_t *data)
{
    for (uint64_t rest = line_map; rest; rest &= rest - 1, data += SP_LINE_BYTES)
        line_copy(page + (size_t)__builtin_ctzll(rest) * SP_LINE_BYTES, data);
}

static void entry_apply_masked(uint8_t *page, const struct sp_masked_parts *parts)
{
    const uint8_t *words = parts->words;
    const uint8_t *masks = parts->masks;
    const uint8_t *data = parts->data;
    /* All misses of the page at once: merging a word reads it first, and must not wait line by line. */
    for (uint64_t rest = parts->line_map; rest; rest &= rest - 1)
        __builtin_prefetch(page + (size_t)__builtin_ctzll(rest) * SP_LINE_BYTES, 1, 3);
    for (uint64_t rest = parts->line_map; rest; rest &= rest - 1) {
        uint8_t *line = page + (size_t)__builtin_ctzll(rest) * SP_LINE_BYTES;
        unsigned changed = *words++;
        if (changed == 0) {
            line_copy(line, data);
            data += SP_LINE_BYTES;
            continue;
        }
        for (; changed; changed &= changed - 1) {
            uint8_t *word = line + 8 * (size_t)__builtin_ctz(changed);
            unsigned mask = *masks++;
            uint64_t keep = ~spread_bits(mask);
            store64(word, (load64(word) & keep) | scatter_bits(load64(data), ~keep));
            data += __builtin_popcount(mask);
        }
    }
}
