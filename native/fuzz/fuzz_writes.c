/*
 * Any bytes as reduced writes to a disk: each piece is refused, or becomes records that fit, whose fills lie within the image and
 * the records. The pieces go through one restorer, as over a connection. Pieces and records end at the end of their allocations, so
 * that AddressSanitizer sees what reaches beyond.
 *
 * Input: pieces, each its length in 2 bytes and its bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "../core/reduce.h"
#include "../disk/records.h"

enum { PAGES = 5, BYTES_MAX = 1 << 17, DISK_BYTES = 1 << 20 };

static uint8_t *copy_of(const uint8_t *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    /* Nothing may have no address. */
    if (bytes > 0)
        memcpy(copy, data, bytes);
    return copy;
}

static void fill(const struct sp_vector *out, const struct sp_vector *fills)
{
    static uint8_t image[PAGES * SP_PAGE_BYTES];
    uint64_t count, again;
    uint8_t *records = copy_of(out->data, out->bytes);
    bool sound = records_check(records, out->bytes, DISK_BYTES, &count) == NULL;
    if (out->bytes > BYTES_MAX || fills->bytes % sizeof(struct sp_fill) != 0)
        abort();
    if (!sp_fill_writes(records, out->bytes, (const struct sp_fill *)fills->data, fills->bytes / sizeof(struct sp_fill), image,
                        PAGES))
        abort();
    /* What is filled in is data: it makes no other records of them. */
    if (sound && (records_check(records, out->bytes, DISK_BYTES, &again) != NULL || again != count))
        abort();
    free(records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sp_restorer *restorer = sp_restorer_new();
    struct sp_vector out = {0}, fills = {0};
    while (size >= 2) {
        size_t given = data[0] | (size_t)data[1] << 8, bytes = given < size - 2 ? given : size - 2;
        uint8_t *piece = copy_of(data + 2, bytes);
        bool after;
        data += 2 + bytes;
        size -= 2 + bytes;
        if (sp_restore_writes(restorer, piece, bytes, PAGES, BYTES_MAX, &out, &fills, &after) != NULL)
            size = 0;
        else
            fill(&out, &fills);
        free(piece);
    }
    sp_vector_free(&out);
    sp_vector_free(&fills);
    sp_restorer_free(restorer);
    return 0;
}
