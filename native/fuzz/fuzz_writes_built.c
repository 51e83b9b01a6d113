/*
 * Writes to a disk, made from a memory and bent: reduced by any parts and methods, each frame comes back as it was, references filled
 * in, and both sides have learnt the same. Then a byte of the next frame is changed: it is refused, or its fills lie where they may.
 *
 * Input: the parts, then writes: what (a piece of the memory, of noise, zeros, bytes as they follow), where on the disk, how many,
 * from where; or the end of a frame.
 */
#include <stdlib.h>
#include <string.h>

#include "../core/reduce.h"
#include "../disk/records.h"

enum { PAGES = 16, BYTES = PAGES * SP_PAGE_BYTES, FRAME_BYTES = 1 << 17, DISK_BYTES = 1 << 20 };

struct way {
    uint8_t memory[BYTES], frame[FRAME_BYTES];
    size_t bytes;
    struct sp_reducer *reducer;
    struct sp_restorer *restorer;
    struct sp_vector reduced, restored, fills;
};

static uint8_t *add(struct way *way, uint64_t offset, uint32_t length, uint32_t kind)
{
    size_t data = kind == RECORD_DATA ? length : 0;
    if (length == 0 || way->bytes + RECORD_HEADER_BYTES + data > FRAME_BYTES)
        return NULL;
    uint8_t *head = way->frame + way->bytes;
    store64(head, offset);
    store32(head + 8, length);
    store32(head + 12, kind);
    way->bytes += RECORD_HEADER_BYTES + data;
    return data ? head + RECORD_HEADER_BYTES : NULL;
}

static void send(struct way *way, enum sp_refer refer, enum sp_squeeze method)
{
    struct sp_writes_stats stats = {0};
    bool after;
    if (way->bytes == 0)
        return;
    if (sp_reduce_writes(way->reducer, way->frame, way->bytes, way->memory, refer, method, &way->reduced, &stats) ||
        sp_restore_writes(way->restorer, way->reduced.data, way->reduced.bytes, PAGES, FRAME_BYTES, &way->restored, &way->fills,
                          &after) ||
        after != (refer == SP_REFER_AFTER) || way->restored.bytes != way->bytes)
        abort();
    if (!sp_fill_writes(way->restored.data, way->restored.bytes, (const struct sp_fill *)way->fills.data,
                        way->fills.bytes / sizeof(struct sp_fill), way->memory, PAGES) ||
        memcmp(way->restored.data, way->frame, way->bytes) != 0)
        abort();
    way->bytes = 0;
}

/* One byte is another one: nothing may be followed that leads outside. */
static void bend(struct way *way, enum sp_refer refer, size_t at, uint8_t flip)
{
    struct sp_writes_stats stats = {0};
    bool after;
    if (sp_reduce_writes(way->reducer, way->frame, way->bytes, way->memory, refer, SP_SQUEEZE_NONE, &way->reduced, &stats))
        abort();
    way->reduced.data[at % way->reduced.bytes] ^= flip;
    if (sp_restore_writes(way->restorer, way->reduced.data, way->reduced.bytes, PAGES, FRAME_BYTES, &way->restored, &way->fills,
                          &after))
        return;
    if (!sp_fill_writes(way->restored.data, way->restored.bytes, (const struct sp_fill *)way->fills.data,
                        way->fills.bytes / sizeof(struct sp_fill), way->memory, PAGES))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct way way;
    if (size < 3)
        return 0;
    const struct sp_reduce_parts parts = {data[0] & 1, data[0] >> 1 & 1, data[0] >> 2 & 1, 64u << (data[1] % 7)};
    enum sp_squeeze method = (enum sp_squeeze)((data[0] >> 3) % SP_SQUEEZE_COUNT);
    enum sp_refer refer = (enum sp_refer)(data[2] % 3);
    const struct sp_run all = {0, PAGES};
    memset(&way, 0, sizeof way);
    for (unsigned i = 0; i < BYTES; i++)
        way.memory[i] = (uint8_t)(i / 96 * 37 + i % (i / SP_PAGE_BYTES + 1));
    way.reducer = sp_reducer_new(PAGES, &parts);
    way.restorer = sp_restorer_new();
    sp_reducer_begin(way.reducer, true);
    sp_reducer_know(way.reducer, &all, 1, way.memory);
    size_t at = 3;
    for (; at + 6 <= size; at += 6) {
        uint32_t offset = (uint32_t)(data[at + 1] | data[at + 2] << 8) * (data[at] & 8 ? 16 : 7);
        uint32_t length = (uint32_t)(data[at + 3] + 1) * (data[at] & 16 ? 64 : 13), from = data[at + 4] * 256u + data[at + 5];
        uint8_t *into;
        offset %= DISK_BYTES - 256 * 64;
        switch (data[at] % 5) {
        case 0:
            from = from % BYTES / (data[at] & 32 ? 1 : 64) * (data[at] & 32 ? 1 : 64);
            length = length < BYTES - from ? length : BYTES - from;
            if ((into = add(&way, offset, length, RECORD_DATA)))
                memcpy(into, way.memory + from, length);
            break;
        case 1:
            if ((into = add(&way, offset, length, RECORD_DATA)))
                for (uint32_t i = 0, noise = from; i < length; i++, noise = noise * 1664525u + 1013904223u)
                    into[i] = (uint8_t)(noise >> 24);
            break;
        case 2:
            if ((into = add(&way, offset, length, RECORD_DATA)))
                memset(into, data[at + 4] & 1, length);
            break;
        case 3:
            add(&way, offset, length, RECORD_ZEROES);
            break;
        default:
            send(&way, refer, method);
        }
    }
    send(&way, refer, method);
    if (parts.dictionary && sp_reducer_digest(way.reducer) != sp_restorer_digest(way.restorer))
        abort();
    memcpy(add(&way, 4096, 2 * SP_PAGE_BYTES, RECORD_DATA), way.memory + SP_PAGE_BYTES, 2 * SP_PAGE_BYTES);
    bend(&way, refer, data[size - 1] | data[size - 2] << 8, data[size - 3]);
    sp_vector_free(&way.reduced);
    sp_vector_free(&way.restored);
    sp_vector_free(&way.fills);
    sp_reducer_free(way.reducer);
    sp_restorer_free(way.restorer);
    return 0;
}
