/*
 * Writing a checked record into a page: included once per CPU path, after `line_copy`, `spread_bits`,
 * `scatter_bits(x, mask)` (pdep) and `put_word_indexes` are defined. Only bytes named by the masks are changed.
 */
static void entry_apply_lines(uint8_t *page, uint64_t line_map, const uint8_t *data)
{
    for (uint64_t rest = line_map; rest; rest &= rest - 1, data += SP_LINE_BYTES)
        line_copy(page + (size_t)__builtin_ctzll(rest) * SP_LINE_BYTES, data);
}

static void entry_apply_masked(uint8_t *page, const struct sp_masked_parts *parts)
{
    uint16_t index[SP_WORDS_PER_PAGE + 8];
    const uint8_t *words = parts->words;
    const uint8_t *lines = parts->lines;
    const uint8_t *data = parts->data;
    uint64_t whole_map = 0;
    size_t word_total = 0;
    for (uint64_t rest = parts->line_map; rest; rest &= rest - 1) {
        unsigned line = (unsigned)__builtin_ctzll(rest);
        unsigned changed = *words++;
        /* All misses of the page at once: merging a word reads it first, and must not wait line by line. */
        __builtin_prefetch(page + (size_t)line * SP_LINE_BYTES, 1, 3);
        whole_map |= (uint64_t)(changed == 0) << line;
        put_word_indexes(index + word_total, changed, line);
        word_total += (unsigned)__builtin_popcount(changed);
    }
    for (uint64_t rest = whole_map; rest; rest &= rest - 1, lines += SP_LINE_BYTES)
        line_copy(page + (size_t)__builtin_ctzll(rest) * SP_LINE_BYTES, lines);
    /* Both counts agree unless somebody writes to the delta meanwhile: even then, stay inside page and delta. */
    size_t word_count = word_total < parts->word_count ? word_total : parts->word_count;
    for (size_t i = 0; i < word_count; i++) {
        uint8_t *word = page + 8 * (size_t)index[i];
        unsigned mask = parts->masks[i];
        uint64_t taken = spread_bits(mask);
        store64(word, (load64(word) & ~taken) | scatter_bits(load64(data), taken));
        data += __builtin_popcount(mask);
    }
}
