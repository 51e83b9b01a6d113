/*
 * See reduce.h: writes to a disk, the receiver's side. Every length and reference is checked here; what comes out is checked once
 * more as records before anything of it is written.
 */
#include "restore_parts.h"
#include "writes.h"

static const char cut[] = "it is cut short";
static const char no_memory[] = "out of memory";

static const char *restore_data(struct sp_source *source, struct sp_cursor *odd, const struct sp_write *write,
                                struct sp_vector *out)
{
    for (uint32_t done = 0, piece; done < write->length; done += piece) {
        piece = sp_write_piece(write, done);
        uint32_t lines = piece / SP_LINE_BYTES;
        SP_INVARIANT(out->bytes <= UINT32_MAX - SP_PAGE_BYTES);
        source->at = (uint32_t)out->bytes;
        const char *problem = lines > 0 ? sp_restore_lines(source, lines, out) : NULL;
        if (problem)
            return problem;
        const uint8_t *rest = sp_cursor_take(odd, piece % SP_LINE_BYTES);
        if (!rest || !sp_vector_put(out, rest, piece % SP_LINE_BYTES))
            return rest ? no_memory : cut;
    }
    return NULL;
}

static const char *from_columns(struct sp_source *source, struct sp_cursor *heads, struct sp_cursor *odd,
                                size_t bytes_max, struct sp_vector *out)
{
    while (heads->p != heads->end) {
        struct sp_write write;
        const uint8_t *head = sp_cursor_take(heads, SP_WRITE_HEAD_BYTES);
        if (!head)
            return cut;
        if (!sp_write_head(head, &write))
            return "a record of a disk has an unknown kind, or lies beyond any disk";
        size_t data = write.zeroes ? 0 : write.length;
        if (bytes_max - out->bytes < SP_WRITE_HEAD_BYTES || bytes_max - out->bytes - SP_WRITE_HEAD_BYTES < data)
            return "it becomes larger than is accepted";
        if (!sp_vector_put(out, head, SP_WRITE_HEAD_BYTES))
            return no_memory;
        const char *problem = write.zeroes ? NULL : restore_data(source, odd, &write, out);
        if (problem)
            return problem;
    }
    if (odd->p != odd->end)
        return "bytes follow the last write";
    for (unsigned column = 0; column < SP_COLUMN_COUNT; column++)
        if (source->columns[column].p != source->columns[column].end)
            return "bytes follow the last write";
    return NULL;
}

const char *sp_restore_writes(struct sp_restorer *restorer, const uint8_t *reduced, size_t bytes, uint64_t image_pages,
                              size_t bytes_max, struct sp_vector *out, struct sp_vector *fills, bool *after)
{
    const uint8_t *p = reduced, *end = reduced + bytes;
    uint32_t lengths[SP_WRITES_COLUMNS] = {0};
    size_t total = 0;
    out->bytes = fills->bytes = 0;
    restorer->unpacked = false;
    /* Offsets of fills have 32 bits. */
    if (bytes_max > SP_DELTA_BYTES_MAX - SP_PAGE_RECORD_MAX)
        bytes_max = SP_DELTA_BYTES_MAX - SP_PAGE_RECORD_MAX;
    if (bytes < 4 || p[0] != 'S' || p[1] != 'W')
        return "they are not reduced writes";
    if (p[2] != SP_WRITES_VERSION)
        return "they are of an unknown version";
    unsigned flags = p[3], method = flags >> SP_REDUCED_METHOD_SHIFT & SP_REDUCED_METHOD_MASK;
    if (flags > 7 || method >= SP_SQUEEZE_COUNT)
        return "they have unknown flags";
    *after = flags & SP_WRITES_AFTER;
    p += 4;
    for (unsigned column = 0; p && column < SP_WRITES_COLUMNS; column++) {
        p = get_uleb(p, end, &lengths[column]);
        total += p ? lengths[column] : 0;
    }
    if (!p)
        return cut;
    const char *problem = sp_restorer_unpack(restorer, method, p, (size_t)(end - p), total);
    if (problem)
        return problem;
    struct sp_source source = {.dictionary = restorer->dictionary, .image_pages = image_pages, .fills = fills};
    struct sp_cursor columns[SP_WRITES_COLUMNS];
    const uint8_t *at = restorer->body.data;
    for (unsigned column = 0; column < SP_WRITES_COLUMNS; at += lengths[column++])
        columns[column] = (struct sp_cursor){at, at + lengths[column]};
    SP_INVARIANT(at == restorer->body.data + restorer->body.bytes);
    memcpy(source.columns, columns + 2, sizeof source.columns);
    return from_columns(&source, &columns[0], &columns[1], bytes_max, out);
}

bool sp_fill_writes(uint8_t *records, size_t bytes, const struct sp_fill *fills, size_t count, const uint8_t *image,
                    uint64_t image_pages)
{
    for (size_t i = 0; i < count; i++) {
        const struct sp_fill *fill = &fills[i];
        size_t length = (size_t)fill->lines * SP_LINE_BYTES;
        if (fill->page >= image_pages || fill->line + fill->lines > SP_LINES_PER_PAGE || fill->to > bytes ||
            length > bytes - fill->to)
            return false;
    }
    for (size_t i = 0; i < count; i++)
        memcpy(records + fills[i].to,
               image + (uint64_t)fills[i].page * SP_PAGE_BYTES + (size_t)fills[i].line * SP_LINE_BYTES,
               (size_t)fills[i].lines * SP_LINE_BYTES);
    return true;
}
