/*
 * Any bytes as a delta: it is refused and the image stays, or it is applied and applying it again changes nothing. The
 * image ends at the end of its allocation, so that AddressSanitizer sees a write outside it. Long inputs are for an image of real
 * size.
 */
#include <stdlib.h>
#include <string.h>

#include "../core/core.h"

enum { PAGES_SMALL = 3, PAGES_MAX = 1024, LONG_INPUT = 1 << 16 };

/* Set when one decoder is aimed at: the header is then made here, and the input is a body of that codec. */
#ifndef CODEC
#define CODEC -1
#endif

static size_t make_delta(const uint8_t *data, size_t size, uint8_t **delta)
{
    if (CODEC < 0) {
        *delta = malloc(size ? size : 1);
        memcpy(*delta, data, size);
        return size;
    }
    /* The first byte: how many records the header claims, and whether they are whole. */
    unsigned claim = size ? data[0] : 0;
    size_t body = size ? size - 1 : 0, bytes = SP_DELTA_HEADER_BYTES + body + SP_DELTA_PAD_BYTES;
    *delta = calloc(1, bytes);
    memcpy(*delta, (uint8_t[]){'S', 'D', SP_DELTA_VERSION, (uint8_t)CODEC, claim & 1, 0, 0, 0, (claim >> 1) & 7}, 9);
    for (unsigned i = 0; i < 4; i++)
        (*delta)[12 + i] = (uint8_t)(body >> (8 * i));
    if (body)
        memcpy(*delta + SP_DELTA_HEADER_BYTES, data + 1, body);
    return bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t before[PAGES_MAX * SP_PAGE_BYTES];
    struct sp_delta_summary summary;
    uint64_t pages = size < LONG_INPUT ? PAGES_SMALL : PAGES_MAX;
    size_t image_bytes = pages * SP_PAGE_BYTES;
    uint8_t *image = malloc(image_bytes), *delta;
    size_t bytes = make_delta(data, size, &delta);
    if (before[0] == 0)
        memset(before, 0xa5, sizeof before);
    sp_cpu_select(size % 2 ? "scalar" : "best");
    memcpy(image, before, image_bytes);
    bool sound = sp_delta_check(delta, bytes, pages, &summary) == NULL;
    if (memcmp(image, before, image_bytes) != 0)
        abort();
    if ((sp_delta_apply(image, pages, delta, bytes, &summary) == NULL) != sound)
        abort();
    if (!sound && memcmp(image, before, image_bytes) != 0)
        abort();
    if (sound) {
        uint8_t *once = malloc(image_bytes);
        memcpy(once, image, image_bytes);
        sp_delta_apply(image, pages, delta, bytes, &summary);
        if (memcmp(once, image, image_bytes) != 0)
            abort();
        free(once);
    }
    free(delta);
    free(image);
    return 0;
}
