/*
 * The journal against plain arrays, for test/native/test_journal.c and fuzz_journal.c: choices become writes, seals, unseals, takes
 * into small buffers, changes of what is known and of the mode. The records that were taken, applied in their order to what the standby
 * holds, give the disk of the guest.
 */
#ifndef SUBPAGE_JOURNAL_MODEL_H
#define SUBPAGE_JOURNAL_MODEL_H

#include <sys/mman.h>
#include <xxhash.h>

#include "../../test/native/check.h"
#include "../disk/journal.h"
#include "../disk/records.h"
#include "grammar.h"

enum {
    /* Three chunks, and a fourth that is shorter. */
    MODEL_DISK_BYTES = 3 * JOURNAL_CHUNK_BYTES + 5000,
    MODEL_JOURNAL_BYTES = 1 << 26,
    /* Of one that spills. */
    MODEL_MEMORY_BYTES = 1 << 14,
    MODEL_CHUNKS = 4,
    MODEL_STEPS_MAX = 4096,
};

struct model {
    struct journal *journal;
    uint8_t disk[MODEL_DISK_BYTES]; /* as the guest sees it */
    uint8_t standby[MODEL_DISK_BYTES];
    uint8_t before[MODEL_DISK_BYTES]; /* what the standby held when it was asked */
    uint8_t write[MODEL_DISK_BYTES], taken[MODEL_DISK_BYTES];
    bool recording;
    uint64_t written_bytes;
};

static inline void model_hashes(const uint8_t *disk, uint8_t *hashes)
{
    for (unsigned at = 0; at < MODEL_DISK_BYTES; at += JOURNAL_CHUNK_BYTES, hashes += JOURNAL_HASH_BYTES) {
        unsigned left = MODEL_DISK_BYTES - at;
        XXH128_canonicalFromHash((XXH128_canonical_t *)hashes,
                                 XXH3_128bits(disk + at, left < JOURNAL_CHUNK_BYTES ? left : JOURNAL_CHUNK_BYTES));
    }
}

/* Does what records say, without the code that is tried. */
static inline void model_apply(uint8_t *disk, const uint8_t *records, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        uint64_t offset;
        uint32_t length, kind;
        memcpy(&offset, records + at, 8);
        memcpy(&length, records + at + 8, 4);
        memcpy(&kind, records + at + 12, 4);
        at += 16;
        CHECK(offset + length <= MODEL_DISK_BYTES);
        if (kind == 1) {
            memset(disk + offset, 0, length);
        } else {
            memcpy(disk + offset, records + at, length);
            at += length;
        }
    }
    CHECK(at == bytes);
}

/* Small or large, at the borders of chunks and blocks or not; noise, zeros, both, what the standby held, or what is there. */
static inline void model_write(struct model *model, struct choices *choices)
{
    static const uint32_t units[] = {1, 512, 4096, JOURNAL_CHUNK_BYTES};
    uint32_t unit = units[choose(choices, 4)];
    uint32_t offset = unit * choose(choices, MODEL_DISK_BYTES / unit + 1);
    uint32_t length = unit * (choose(choices, 16) + 1);
    if (offset >= MODEL_DISK_BYTES)
        offset = 0;
    if (length > MODEL_DISK_BYTES - offset)
        length = MODEL_DISK_BYTES - offset;
    switch (choose(choices, 5)) {
    case 0:
        memset(model->write, noise(choices), length);
        model->write[noise(choices) % length] = noise(choices);
        break;
    case 1:
        memset(model->write, 0, length);
        break;
    case 2:
        for (uint32_t at = 0, part; at < length; at += part) {
            uint32_t left = JOURNAL_CHUNK_BYTES - (offset + at) % JOURNAL_CHUNK_BYTES;
            part = left < length - at ? left : length - at;
            memset(model->write + at, (offset + at) / JOURNAL_CHUNK_BYTES % 2 * 7, part);
        }
        break;
    case 3:
        memcpy(model->write, model->before + offset, length);
        break;
    default:
        memcpy(model->write, model->disk + offset, length);
    }
    CHECK(journal_write(model->journal, offset, model->write, length) == 0);
    memcpy(model->disk + offset, model->write, length);
    model->written_bytes += length;
}

/* Returns the bytes taken. The buffer is as small as the choices say, seldom tiny, and exactly so large. */
static inline size_t model_take(struct model *model, struct choices *choices, bool sealed)
{
    size_t room = JOURNAL_TAKE_BYTES_MIN + (seldom(choices) ? choose(choices, 40) : 20000 + choose(choices, 30000));
    uint8_t *into = malloc(room);
    uint64_t count;
    ssize_t result = journal_take(model->journal, into, room, sealed);
    CHECK(result >= 0 && (size_t)result <= room);
    size_t used = (size_t)result;
    CHECK( records_check(into, used, MODEL_DISK_BYTES, &count) == NULL);
    CHECK((used == 0) == (count == 0));
    model_apply(model->standby, into, used);
    free(into);
    return used;
}

/* All that is left goes to the standby: it is the guest's disk then. */
static inline void model_settle(struct model *model, struct choices *choices)
{
    struct journal_stats stats;
    journal_unseal(model->journal);
    while (model_take(model, choices, false) > 0) {
    }
    CHECK(memcmp(model->disk, model->standby, MODEL_DISK_BYTES) == 0);
    journal_read_stats(model->journal, &stats);
    CHECK(stats.current_bytes == 0 && stats.sealed_bytes == 0 && stats.spilled_bytes == 0 && stats.waiting_ms == 0);
    CHECK(stats.written_bytes == model->written_bytes && stats.recording);
}

/* A standby that holds something else: from now on it is known, and the whole disk is written once, as a mirror does. */
static inline void model_seed(struct model *model, struct choices *choices)
{
    uint8_t hashes[MODEL_CHUNKS * JOURNAL_HASH_BYTES];
    journal_drop(model->journal);
    /* Forgotten, and written again by what follows. */
    model_write(model, choices);
    for (unsigned chunk = 0; chunk < MODEL_CHUNKS; chunk++) {
        uint32_t at = chunk * JOURNAL_CHUNK_BYTES;
        uint32_t length = chunk < MODEL_CHUNKS - 1 ? JOURNAL_CHUNK_BYTES : MODEL_DISK_BYTES - at;
        unsigned kind = choose(choices, 3);
        if (kind == 0)
            memcpy(model->standby + at, model->disk + at, length);
        else
            memset(model->standby + at, kind == 1 ? 0 : 9, length);
    }
    memcpy(model->before, model->standby, MODEL_DISK_BYTES);
    model_hashes(model->standby, hashes);
    if (choose(choices, 4))
        CHECK(journal_know(model->journal, hashes, sizeof hashes) == 0);
    journal_record(model->journal);
    for (uint32_t at = 0, length; at < MODEL_DISK_BYTES; at += length) {
        length = (choose(choices, 4) + 1) * JOURNAL_CHUNK_BYTES / 2;
        if (length > MODEL_DISK_BYTES - at)
            length = MODEL_DISK_BYTES - at;
        /* The guest writes, before and behind what is mirrored. */
        if (choose(choices, 2))
            model_write(model, choices);
        CHECK(journal_write(model->journal, at, model->disk + at, length) == 0);
        model->written_bytes += length;
        if (choose(choices, 2))
            model_take(model, choices, choose(choices, 2));
    }
}

/* Runs until the choices end. */
static inline void model_run(struct model *model, struct choices *choices)
{
    uint8_t hashes[MODEL_CHUNKS * JOURNAL_HASH_BYTES];
    memset(model, 0, sizeof *model);
    bool spills = choose(choices, 2);
    model->journal = journal_new(MODEL_DISK_BYTES, spills ? MODEL_MEMORY_BYTES : MODEL_JOURNAL_BYTES);
    if (spills)
        CHECK(journal_spill(model->journal, memfd_create("journal", MFD_CLOEXEC), MODEL_JOURNAL_BYTES) == 0);
    journal_record(model->journal);
    for (unsigned step = 0; step < MODEL_STEPS_MAX && choices->p < choices->end; step++)
        switch (choose(choices, 16)) {
        case 0:
            journal_seal(model->journal);
            break;
        case 1:
            journal_unseal(model->journal);
            break;
        case 2:
        case 3:
            model_take(model, choices, true);
            break;
        case 4:
            /* Only before anything is sealed does the current list hold what comes next. */
            while (model_take(model, choices, true) > 0) {
            }
            model_take(model, choices, false);
            break;
        case 5:
            model_settle(model, choices);
            break;
        case 6:
            model_seed(model, choices);
            break;
        case 7:
            /* Asked again while something is still to be sent. */
            memcpy(model->before, model->standby, MODEL_DISK_BYTES);
            model_hashes(model->standby, hashes);
            CHECK(journal_know(model->journal, hashes, sizeof hashes) == 0);
            break;
        default:
            model_write(model, choices);
        }
    model_settle(model, choices);
    journal_free(model->journal);
}

#endif
