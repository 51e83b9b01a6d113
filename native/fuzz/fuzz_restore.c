/*
 * Any bytes as what a sender reduces: each piece is refused, or becomes a delta that is refused, or one that can be applied.
 * The pieces go through one restorer, as over a connection, so that they build on what the ones before taught it; of those of
 * odd length the references are listed first. Image and pieces end at the end of their allocations, so that AddressSanitizer
 * sees what reaches beyond.
 *
 * Input: pieces, each its length in 2 bytes, of which the top bit says that it comes as a delta to learn from, and its bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "../core/reduce.h"

enum { PAGES = 5, BYTES = PAGES * SP_PAGE_BYTES, BYTES_MAX = 1 << 18 };

static uint8_t *copy_of(const uint8_t *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    memcpy(copy, data, bytes);
    return copy;
}

static void apply(uint8_t *image, const struct sp_vector *delta)
{
    struct sp_delta_summary summary;
    uint8_t *exact = copy_of(delta->data, delta->bytes);
    bool sound = sp_delta_check(exact, delta->bytes, PAGES, &summary) == NULL;
    if ((sp_delta_apply(image, PAGES, exact, delta->bytes, &summary) == NULL) != sound)
        abort();
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t first[BYTES];
    if (first[1] == 0)
        for (size_t at = 0; at < BYTES; at++)
            first[at] = (uint8_t)(at / SP_LINE_BYTES * 31 + at);
    uint8_t *image = copy_of(first, BYTES);
    struct sp_restorer *restorer = sp_restorer_new();
    struct sp_vector out = {0};
    while (size >= 2) {
        size_t given = data[0] | (size_t)(data[1] & 0x7f) << 8, bytes = given < size - 2 ? given : size - 2;
        bool plain = data[1] >> 7;
        uint8_t *piece = copy_of(data + 2, bytes);
        data += 2 + bytes;
        size -= 2 + bytes;
        struct sp_delta_summary summary;
        if (plain) {
            if (sp_delta_check(piece, bytes, PAGES, &summary) == NULL)
                sp_restorer_learn(restorer, piece, bytes);
        } else if ((bytes & 1 &&
                    sp_restore_references(restorer, piece, bytes, PAGES, BYTES_MAX, &out) != NULL) ||
                   sp_restore(restorer, piece, bytes, image, PAGES, BYTES_MAX, &out) != NULL) {
            size = 0;
        } else {
            if (out.bytes > BYTES_MAX + SP_PAGE_RECORD_MAX)
                abort();
            apply(image, &out);
        }
        free(piece);
    }
    sp_vector_free(&out);
    sp_restorer_free(restorer);
    free(image);
    return 0;
}
