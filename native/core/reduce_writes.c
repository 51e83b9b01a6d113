/* See reduce.h: writes to a disk, the sender's side. The bytes are docs/reduced-format.md. */
#include "reduce_parts.h"
#include "writes.h"

static bool is_zero(const uint8_t *piece, size_t bytes)
{
    SP_INVARIANT(bytes >= SP_LINE_BYTES);
    return load64(piece) == 0 && memcmp(piece, piece + 8, bytes - 8) == 0;
}

/* The lines of a piece, as if they were the first ones of a page of the memory. */
static bool put_lines(struct sp_pass *pass, const uint8_t *piece, uint32_t lines, struct sp_writes_stats *stats)
{
    struct sp_vector *pages = &pass->reducer->columns[SP_COLUMN_PAGES];
    SP_INVARIANT(lines > 0 && lines <= SP_LINES_PER_PAGE);
    if (is_zero(piece, (size_t)lines * SP_LINE_BYTES)) {
        stats->zero_bytes += (uint64_t)lines * SP_LINE_BYTES;
        if (!sp_vector_reserve(pages, 1))
            return false;
        sp_vector_append_byte(pages, SP_PAGE_ZERO);
        return true;
    }
    struct sp_page_view view = {.page = pass->last_page, .raw = true};
    view.line_map = ~0ull >> (SP_LINES_PER_PAGE - lines);
    /* Without memory to look in there is nothing to compare with, either. */
    view.memory = pass->memory ? piece : NULL;
    sp_view_literal(&view, view.line_map, piece);
    return sp_reduce_page(pass, &view);
}

static const char *to_columns(struct sp_pass *pass, const uint8_t *records, size_t bytes, struct sp_writes_stats *stats)
{
    struct sp_reducer *reducer = pass->reducer;
    for (size_t at = 0; at < bytes;) {
        struct sp_write write;
        if (!sp_write_parse(records, bytes, &at, &write))
            return "the records of writes are malformed";
        if (!sp_vector_put(&reducer->heads, write.head, SP_WRITE_HEAD_BYTES))
            return "out of memory";
        if (write.zeroes)
            stats->zero_bytes += write.length;
        if (write.zeroes)
            continue;
        const uint8_t *data = write.head + SP_WRITE_HEAD_BYTES;
        for (uint32_t done = 0, piece; done < write.length; done += piece) {
            piece = sp_write_piece(&write, done);
            uint32_t lines = piece / SP_LINE_BYTES, odd = piece % SP_LINE_BYTES;
            if ((lines > 0 && !put_lines(pass, data + done, lines, stats)) ||
                !sp_vector_put(&reducer->odd, data + done + piece - odd, odd))
                return "out of memory";
            stats->odd_bytes += odd;
        }
    }
    return NULL;
}

const char *sp_reduce_writes(struct sp_reducer *reducer, const uint8_t *records, size_t bytes, const uint8_t *memory,
                             enum sp_refer refer, enum sp_squeeze method, struct sp_vector *out,
                             struct sp_writes_stats *stats)
{
    struct sp_pass pass = {.reducer = reducer, .memory = memory, .stats = &stats->content, .of_disk = true};
    pass.refer = memory ? refer : SP_REFER_NONE;
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        reducer->columns[column].bytes = 0;
    reducer->heads.bytes = reducer->odd.bytes = out->bytes = reducer->body.bytes = 0;
    const char *problem = to_columns(&pass, records, bytes, stats);
    if (problem)
        return problem;
    const struct sp_vector *parts[SP_WRITES_COLUMNS] = {&reducer->heads, &reducer->odd};
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        parts[2 + column] = &reducer->columns[column];
    if (!sp_vector_reserve(out, 4 + SP_WRITES_COLUMNS * SP_ULEB_BYTES_MAX))
        return "out of memory";
    uint8_t begin[4] = {'S', 'W', SP_WRITES_VERSION, pass.refer == SP_REFER_AFTER ? SP_WRITES_AFTER : 0};
    sp_vector_append(out, begin, sizeof begin);
    for (unsigned column = 0; column < SP_WRITES_COLUMNS; column++) {
        sp_vector_append_uleb(out, (uint32_t)parts[column]->bytes);
        if (!sp_vector_put(&reducer->body, parts[column]->data, parts[column]->bytes))
            return "out of memory";
    }
    if (reducer->body.bytes > SP_REDUCED_BODY_BYTES_MAX)
        return "there are more writes than go into one frame";
    return sp_reduced_put_body(reducer, reducer->body.data, reducer->body.bytes, method, out);
}
