/*
 * Any course of a memory, reduced by any parts and methods, restored and applied: the image is the memory, and both sides have
 * learnt the same. The input begins with the parts, then come writes: a byte of what to do (a page copied from another, a line
 * copied, bytes as they follow, a stretch of noise, the end of an epoch), where, and from where or how many.
 */
#include <stdlib.h>
#include <string.h>

#include "../core/reduce.h"

enum { PAGES = 48, BYTES = PAGES * SP_PAGE_BYTES, LINES = BYTES / SP_LINE_BYTES, ROOM = 2 * BYTES };

struct pair {
    uint8_t memory[BYTES], shadow[BYTES], image[BYTES];
    struct sp_reducer *reducer;
    struct sp_restorer *restorer;
    struct sp_vector reduced, restored;
    bool seeded;
    unsigned first, end; /* pages written in this epoch lie between these */
};

static void wrote(struct pair *pair, unsigned from, unsigned to)
{
    unsigned first = from / SP_PAGE_BYTES, end = (to + SP_PAGE_BYTES - 1) / SP_PAGE_BYTES;
    pair->first = first < pair->first ? first : pair->first;
    pair->end = end > pair->end ? end : pair->end;
}

/* What lies outside of the written pages may be referred to. */
static void end_epoch(struct pair *pair, enum sp_squeeze method)
{
    const struct sp_run run = {pair->first, pair->end - pair->first}, *dirty = &run;
    if (pair->first >= pair->end)
        return;
    pair->first = PAGES;
    pair->end = 0;
    static uint8_t delta[ROOM];
    struct sp_reduce_stats stats = {0};
    struct sp_delta_summary summary;
    struct sp_capture job = {.ram = pair->memory, .shadow = pair->shadow, .pages = PAGES, .runs = dirty, .run_count = 1,
                             .codec = SP_CODEC_MASKED, .whole = !pair->seeded, .out = delta, .capacity = ROOM};
    if (!sp_capture_run(&job) || job.run != 1)
        abort();
    sp_reducer_begin(pair->reducer, pair->seeded);
    if (!sp_reducer_include(pair->reducer, dirty, 1) ||
        sp_reduce(pair->reducer, delta, job.bytes, pair->shadow, method, &pair->reduced, &stats))
        abort();
    const uint8_t *sent = delta;
    size_t bytes = job.bytes;
    if (pair->reduced.bytes) {
        if (sp_restore(pair->restorer, pair->reduced.data, pair->reduced.bytes, pair->image, PAGES, ROOM, &pair->restored))
            abort();
        sent = pair->restored.data;
        bytes = pair->restored.bytes;
    } else {
        sp_restorer_learn(pair->restorer, delta, bytes);
    }
    if (sp_delta_apply(pair->image, PAGES, sent, bytes, &summary) || memcmp(pair->image, pair->memory, BYTES) != 0)
        abort();
    pair->seeded = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    static struct pair pair;
    const struct sp_reduce_parts parts = {data[0] & 1, data[0] >> 1 & 1, data[0] >> 2 & 1, 64u << (data[1] % 7)};
    enum sp_squeeze method = (enum sp_squeeze)((data[0] >> 3) % SP_SQUEEZE_COUNT);
    memset(&pair, 0, sizeof pair);
    pair.end = PAGES;
    pair.reducer = sp_reducer_new(PAGES, &parts);
    pair.restorer = sp_restorer_new();
    size_t at = 2;
    for (; at + 4 <= size; at += 4) {
        unsigned to = data[at + 1] | data[at + 2] << 8, from = data[at + 3];
        switch (data[at] % 6) {
        case 0:
            memmove(pair.memory + to % PAGES * SP_PAGE_BYTES, pair.memory + from % PAGES * SP_PAGE_BYTES, SP_PAGE_BYTES);
            wrote(&pair, to % PAGES * SP_PAGE_BYTES, to % PAGES * SP_PAGE_BYTES + 1);
            break;
        case 1:
            memmove(pair.memory + to % LINES * SP_LINE_BYTES, pair.memory + from * 2 % LINES * SP_LINE_BYTES, SP_LINE_BYTES);
            wrote(&pair, to % LINES * SP_LINE_BYTES, to % LINES * SP_LINE_BYTES + 1);
            break;
        case 2:
            wrote(&pair, to % BYTES, to % BYTES + from < BYTES ? to % BYTES + from + 1 : BYTES);
            for (unsigned i = 0; i < from && at + 4 < size && to % BYTES + i < BYTES; i++, at++)
                pair.memory[to % BYTES + i] = data[at + 4];
            break;
        case 3:
        case 4:
            /* A stretch of up to a page and a half of noise, so that a short input makes a long epoch. */
            for (unsigned i = 0, noise = from * 2654435761u + 1; i < from * 24; i++, noise = noise * 1664525u + 1013904223u)
                if (to % BYTES + i < BYTES && (data[at] % 6 == 3 || noise >> 30 == 0))
                    pair.memory[to % BYTES + i] = (uint8_t)(noise >> 20);
            wrote(&pair, to % BYTES, to % BYTES + from * 24 < BYTES ? to % BYTES + from * 24 + 1 : BYTES);
            break;
        default:
            end_epoch(&pair, method);
        }
    }
    end_epoch(&pair, method);
    if (parts.dictionary && sp_reducer_digest(pair.reducer) != sp_restorer_digest(pair.restorer))
        abort();
    sp_vector_free(&pair.reduced);
    sp_vector_free(&pair.restored);
    sp_reducer_free(pair.reducer);
    sp_restorer_free(pair.restorer);
    return 0;
}
