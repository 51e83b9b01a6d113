/*
 * Any bytes as what a sender reduces: each piece is refused, or becomes a delta that is refused, or one that can be applied.
 * The pieces go through one restorer, as over a connection, so that they build on what the ones before taught it; of those of
 * odd length the references are listed first. Image and pieces end at the end of their allocations, so that AddressSanitizer
 * sees what reaches beyond. Long inputs are for an image of real size.
 *
 * Input: pieces, each its length in 3 bytes, of which the top bit says that it comes as a delta to learn from, and its bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "../core/reduce.h"

enum { PAGES_SMALL = 5, PAGES_MAX = 1024, LONG_INPUT = 1 << 16 };

static uint8_t *copy_of(const uint8_t *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    memcpy(copy, data, bytes);
    return copy;
}

static void apply(uint8_t *image, uint64_t pages, const struct sp_vector *delta)
{
    struct sp_delta_summary summary;
    uint8_t *exact = copy_of(delta->data, delta->bytes);
    bool sound = sp_delta_check(exact, delta->bytes, pages, &summary) == NULL;
    if ((sp_delta_apply(image, pages, exact, delta->bytes, &summary) == NULL) != sound)
        abort();
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t first[PAGES_MAX * SP_PAGE_BYTES];
    if (first[1] == 0)
        for (size_t at = 0; at < sizeof first; at++)
            first[at] = (uint8_t)(at / SP_LINE_BYTES * 31 + at);
    uint64_t pages = size < LONG_INPUT ? PAGES_SMALL : PAGES_MAX;
    /* A delta that holds every page whole, and what the restorer may need beyond. */
    size_t bytes_max = 2 * pages * SP_PAGE_BYTES;
    uint8_t *image = copy_of(first, pages * SP_PAGE_BYTES);
    struct sp_restorer *restorer = sp_restorer_new();
    struct sp_vector out = {0};
    while (size >= 3) {
        size_t given = data[0] | (size_t)data[1] << 8 | (size_t)(data[2] & 0x7f) << 16;
        size_t bytes = given < size - 3 ? given : size - 3;
        bool plain = data[2] >> 7;
        uint8_t *piece = copy_of(data + 3, bytes);
        data += 3 + bytes;
        size -= 3 + bytes;
        struct sp_delta_summary summary;
        if (plain) {
            if (sp_delta_check(piece, bytes, pages, &summary) == NULL)
                sp_restorer_learn(restorer, piece, bytes);
        } else if ((bytes & 1 &&
                    sp_restore_references(restorer, piece, bytes, pages, bytes_max, &out) != NULL) ||
                   sp_restore(restorer, piece, bytes, image, pages, bytes_max, &out) != NULL) {
            size = 0;
        } else {
            if (out.bytes > bytes_max + SP_PAGE_RECORD_MAX)
                abort();
            apply(image, pages, &out);
        }
        free(piece);
    }
    sp_vector_free(&out);
    sp_restorer_free(restorer);
    free(image);
    return 0;
}
