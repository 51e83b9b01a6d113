/*
 * Any change of two pages, by every codec on every path: apply(capture(a → b), a) = b, both paths give the same bytes.
 * The input is a list of writes: page and offset (2 bytes), length (1), then the bytes, first into a, then into both.
 */
#include <stdlib.h>
#include <string.h>

#include "../core/core.h"

enum { PAGES = 2, BYTES = PAGES * SP_PAGE_BYTES, ROOM = 4 * SP_DELTA_MIN_CAPACITY };

static const struct sp_run all = {0, PAGES};

static size_t capture(const uint8_t *before, const uint8_t *after, const char *path, int codec, bool whole, uint8_t *out)
{
    uint8_t shadow[BYTES];
    struct sp_capture job = {.ram = after, .shadow = {.memory = shadow, .block_lines = 1}, .pages = PAGES, .runs = &all, .run_count = 1,
                             .codec = (enum sp_codec)codec, .whole = whole, .out = out, .capacity = ROOM};
    memcpy(shadow, before, BYTES);
    if (!sp_cpu_select(path) || !sp_capture_run(&job) || job.run != 1 || memcmp(shadow, after, BYTES) != 0)
        abort();
    return job.bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t before[BYTES] = {0}, after[BYTES] = {0}, image[BYTES];
    static uint8_t first[ROOM], second[ROOM];
    bool old = true;
    for (size_t at = 0; at + 3 <= size;) {
        size_t to = (data[at] | (size_t)data[at + 1] << 8) % BYTES, length = data[at + 2];
        at += 3;
        for (size_t i = 0; i < length && at + i < size && to + i < BYTES; i++)
            after[to + i] = data[at + i];
        at += length;
        if (old && at > size / 2) {
            memcpy(before, after, BYTES);
            old = false;
        }
    }
    for (int codec = 0; codec < SP_CODEC_COUNT; codec++) {
        for (int whole = 0; whole < 2; whole++) {
            struct sp_delta_summary summary;
            size_t bytes = capture(before, after, "best", codec, whole, first);
            if (capture(before, after, "scalar", codec, whole, second) != bytes || memcmp(first, second, bytes) != 0)
                abort();
            memcpy(image, before, BYTES);
            if (sp_delta_apply(image, PAGES, first, bytes, &summary) || memcmp(image, after, BYTES) != 0)
                abort();
        }
    }
    return 0;
}
