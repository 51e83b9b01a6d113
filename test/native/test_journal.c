/*
 * The journal of a disk: random sequences against plain arrays, what merging and zeros save, and that it stays within its
 * bounds: a write waits while it is full. What goes through a file.
 * build with: native/disk/journal.c native/disk/journal_known.c native/disk/journal_take.c native/disk/journal_write.c native/disk/spill.c native/disk/records.c native/disk/chunk_map.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../native/core/bytes.h"
#include "../../native/fuzz/journal_model.h"
#include "check.h"

enum { SEEDS = 300, CHOICES = 1000 };

static void random_sequences(void)
{
    static struct model model;
    static uint8_t bytes[CHOICES];
    unsigned first = (unsigned)time(NULL);
    for (unsigned seed = first; seed < first + SEEDS; seed++) {
        uint32_t state = seed;
        for (unsigned i = 0; i < CHOICES; i++) {
            state = state * 1664525u + 1013904223u;
            bytes[i] = (uint8_t)(state >> 24);
        }
        struct choices choices = {bytes, bytes + seed % CHOICES, seed};
        model_run(&model, &choices);
    }
}

static struct journal_stats stats_of(struct journal *journal)
{
    struct journal_stats stats;
    journal_read_stats(journal, &stats);
    return stats;
}

static uint64_t taken_records(struct journal *journal)
{
    static uint8_t into[1 << 20];
    uint64_t count, all = 0;
    for (ssize_t used; (used = journal_take(journal, into, sizeof into, false)) > 0; all += count)
        CHECK(records_check(into, (size_t)used, MODEL_DISK_BYTES, &count) == NULL);
    return all;
}

static void put(struct journal *journal, uint64_t offset, uint32_t length, int content)
{
    static uint8_t data[MODEL_DISK_BYTES];
    memset(data, content, length);
    CHECK(journal_write(journal, offset, data, length) == 0);
}

static void merges(void)
{
    struct journal *journal = journal_new(MODEL_DISK_BYTES, 1 << 20);
    journal_record(journal);
    /* The same block again and again, others in between. */
    for (int i = 0; i < 100; i++) {
        put(journal, 4096, 4096, 1 + i);
        put(journal, 65536, 8192, 2 + i);
    }
    CHECK(stats_of(journal).current_bytes == 4096 + 8192 + 2 * JOURNAL_RECORD_COST);
    /* Overlapped since: order counts. */
    put(journal, 6000, 10, 7);
    put(journal, 4096, 4096, 9);
    CHECK(stats_of(journal).current_bytes == 2 * 4096 + 8192 + 10 + 4 * JOURNAL_RECORD_COST);
    /* Zeros cost no data, and are merged too. */
    put(journal, 140000, 40000, 0);
    put(journal, 140000, 40000, 0);
    CHECK(stats_of(journal).current_bytes == 2 * 4096 + 8192 + 10 + 5 * JOURNAL_RECORD_COST);
    CHECK(stats_of(journal).zero_bytes == 80000);
    /* What is sealed is not changed. */
    journal_seal(journal);
    put(journal, 65536, 8192, 1);
    CHECK(stats_of(journal).current_bytes == 8192 + JOURNAL_RECORD_COST);
    journal_unseal(journal);
    CHECK(taken_records(journal) == 6);
    CHECK(stats_of(journal).current_bytes == 0);
    journal_free(journal);
}

static void equal_chunks(void)
{
    static uint8_t disk[MODEL_DISK_BYTES], hashes[MODEL_CHUNKS * JOURNAL_HASH_BYTES];
    struct journal *journal = journal_new(MODEL_DISK_BYTES, 1 << 20);
    CHECK(journal_chunks(journal) == MODEL_CHUNKS);
    memset(disk, 3, sizeof disk);
    model_hashes(disk, hashes);
    CHECK(journal_know(journal, hashes, sizeof hashes - 1) == EINVAL);
    CHECK(journal_know(journal, hashes, sizeof hashes) == 0);
    journal_record(journal);
    put(journal, 0, MODEL_DISK_BYTES, 3);
    CHECK(stats_of(journal).equal_bytes == MODEL_DISK_BYTES && stats_of(journal).current_bytes == 0);
    /* A part of a chunk is recorded, whatever it is; and from then on the whole chunk. */
    put(journal, 100, 200, 3);
    put(journal, 0, JOURNAL_CHUNK_BYTES, 3);
    CHECK(stats_of(journal).equal_bytes == MODEL_DISK_BYTES && taken_records(journal) == 2);
    put(journal, JOURNAL_CHUNK_BYTES, JOURNAL_CHUNK_BYTES, 3);
    CHECK(taken_records(journal) == 0);
    /* Known anew while a record waits: the standby will hold that. */
    put(journal, JOURNAL_CHUNK_BYTES, 4096, 8);
    journal_seal(journal);
    CHECK(journal_know(journal, hashes, sizeof hashes) == 0);
    put(journal, JOURNAL_CHUNK_BYTES, JOURNAL_CHUNK_BYTES, 3);
    journal_unseal(journal);
    CHECK(taken_records(journal) == 2);
    /* After `drop` nothing is known. */
    journal_drop(journal);
    journal_record(journal);
    put(journal, 2 * JOURNAL_CHUNK_BYTES, JOURNAL_CHUNK_BYTES, 3);
    CHECK(taken_records(journal) == 1);
    /* What is forgotten in the mode `drop` was written all the same. */
    journal_drop(journal);
    CHECK(journal_know(journal, hashes, sizeof hashes) == 0);
    put(journal, 5, 5, 1);
    journal_record(journal);
    put(journal, 0, JOURNAL_CHUNK_BYTES, 3);
    CHECK(taken_records(journal) == 1);
    CHECK(journal_know(journal, NULL, 0) == 0);
    put(journal, 2 * JOURNAL_CHUNK_BYTES, JOURNAL_CHUNK_BYTES, 3);
    CHECK(taken_records(journal) == 1);
    journal_free(journal);
}

/* ---- bounds */

struct writer {
    struct journal *journal;
    uint32_t length;
    int error;
};

static void *write_once(void *context)
{
    static uint8_t data[1 << 20];
    struct writer *writer = context;
    memset(data, 4, sizeof data);
    writer->error = journal_write(writer->journal, 0, data, writer->length);
    return NULL;
}

static pthread_t start_waiting(struct writer *writer)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, write_once, writer) == 0);
    while (stats_of(writer->journal).waiting_ms == 0)
        sched_yield();
    return thread;
}

static void waits_when_full(void)
{
    static uint8_t into[8192];
    enum { MAX = 10 * (4096 + JOURNAL_RECORD_COST) };
    struct journal *journal = journal_new(1 << 20, MAX);
    struct writer writer = {journal, 4096, -1};
    journal_record(journal);
    for (unsigned i = 0; i < 10; i++)
        put(journal, 4096 * (i + 1), 4096, 1);
    CHECK(stats_of(journal).current_bytes == MAX);
    pthread_t thread = start_waiting(&writer);
    /* A seal makes no room. */
    journal_seal(journal);
    CHECK(stats_of(journal).sealed_bytes == MAX && stats_of(journal).waiting_ms > 0);
    /* A take does. */
    CHECK(journal_take(journal, into, sizeof into, true) > 0);
    pthread_join(thread, NULL);
    CHECK(writer.error == 0 && stats_of(journal).waiting_ms == 0);
    CHECK(stats_of(journal).current_bytes + stats_of(journal).sealed_bytes <= MAX);
    /* More than all the room: when the journal is empty. */
    writer.length = 1 << 20;
    thread = start_waiting(&writer);
    while (journal_take(journal, into, sizeof into, true) > 0) {
    }
    CHECK(stats_of(journal).waiting_ms > 0);
    while (stats_of(journal).waiting_ms > 0)
        journal_take(journal, into, sizeof into, false);
    pthread_join(thread, NULL);
    CHECK(writer.error == 0);
    /* `drop` frees it, and forgets. */
    writer.length = 4096;
    thread = start_waiting(&writer);
    journal_drop(journal);
    pthread_join(thread, NULL);
    CHECK(writer.error == 0 && stats_of(journal).current_bytes == 0);
    /* So does the end. */
    journal_record(journal);
    put(journal, 0, 1 << 17, 1);
    thread = start_waiting(&writer);
    journal_stop(journal);
    pthread_join(thread, NULL);
    CHECK(writer.error == ECANCELED);
    CHECK(journal_write(journal, 0, into, 1) == ECANCELED);
    journal_free(journal);
}

/* ---- what has no room in memory */

static void spills(void)
{
    static uint8_t into[1 << 16];
    enum { DISK = 64 << 20, BYTES = 1 << 20, FILE_BYTES = 8 << 20, ROUNDS = 100 };
    int file = memfd_create("journal", MFD_CLOEXEC), seen = dup(file);
    struct journal *journal = journal_new(DISK, BYTES / 2);
    struct stat status;
    journal_record(journal);
    CHECK(file >= 0 && journal_spill(journal, file, FILE_BYTES) == 0);
    /* Many times what the file takes: it is used anew, and each record comes back in its turn. */
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < 16; i++)
            put(journal, (uint64_t)i << 17, 1 << 17, 1 + (int)(round + i) % 250);
        CHECK(stats_of(journal).spilled_bytes > BYTES);
        CHECK(stats_of(journal).current_bytes - stats_of(journal).spilled_bytes <= BYTES / 2);
        journal_seal(journal);
        put(journal, 0, 4096, 9);
        uint64_t bytes = 0;
        for (ssize_t used; (used = journal_take(journal, into, sizeof into, true)) > 0;)
            for (ssize_t at = 0; at < used;) {
                uint32_t length = load32(into + at + 8);
                uint64_t offset = load64(into + at);
                CHECK(into[at + 16] == 1 + (round + (offset >> 17)) % 250 && into[at + 16] == into[at + 15 + length]);
                bytes += length;
                at += 16 + length;
            }
        CHECK(bytes == 16 << 17 && taken_records(journal) == 1);
    }
    CHECK(stats_of(journal).spilled_total > (uint64_t)ROUNDS * BYTES && stats_of(journal).spilled_bytes == 0);
    CHECK(fstat(seen, &status) == 0 && status.st_size == 0);
    /* It stays within its bounds: the next one waits. */
    for (uint64_t i = 0; stats_of(journal).spilled_bytes < FILE_BYTES * 7 / 8; i++)
        put(journal, i << 17, 1 << 17, 1);
    CHECK(fstat(seen, &status) == 0 && status.st_size <= FILE_BYTES);
    struct writer writer = {journal, 1 << 20, -1};
    pthread_t thread = start_waiting(&writer);
    journal_drop(journal);
    pthread_join(thread, NULL);
    CHECK(writer.error == 0 && fstat(seen, &status) == 0 && status.st_size == 0);
    /* A file that takes nothing more, or has lost something: the guest writes on, and whoever takes hears of it. */
    journal_record(journal);
    for (uint64_t i = 0; i < 3; i++)
        put(journal, i << 17, 1 << 17, 1);
    put(journal, BYTES, 1 << 17, 2);
    put(journal, 2 * BYTES, 1 << 17, 2);
    CHECK(stats_of(journal).spilled_bytes == 2 << 17 && ftruncate(seen, 100) == 0);
    ssize_t used = 0;
    for (unsigned takes = 0; takes < 1000 && used >= 0; takes++)
        used = journal_take(journal, into, sizeof into, false);
    CHECK(used == -EIO && !stats_of(journal).recording);
    put(journal, 0, 4096, 1);
    journal_drop(journal);
    journal_record(journal);
    CHECK(journal_take(journal, into, sizeof into, true) == -EIO && !stats_of(journal).recording);
    journal_free(journal);
    CHECK(fstat(seen, &status) == 0 && close(seen) == 0 && fcntl(file, F_GETFD) < 0);
}

static void spill_is_full(void)
{
    static uint8_t into[1 << 16];
    struct journal *journal = journal_new(MODEL_DISK_BYTES, 1 << 16);
    journal_record(journal);
    CHECK(journal_spill(journal, open("/dev/full", O_RDWR | O_CLOEXEC), 8 << 20) == 0);
    put(journal, 0, 40000, 1);
    CHECK(journal_take(journal, into, 8192, false) > 0);
    put(journal, 65536, 40000, 2);
    put(journal, 0, 4096, 3);
    CHECK(journal_take(journal, into, sizeof into, false) == -ENOSPC);
    CHECK(stats_of(journal).writes == 3 && !stats_of(journal).recording);
    journal_free(journal);
}

/* ---- what was there before */

enum { FILL_STEPS = 4000 };

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void take_all(struct journal *journal, uint8_t *standby)
{
    static uint8_t into[1 << 16];
    for (ssize_t used; (used = journal_take(journal, into, sizeof into, false)) > 0;)
        model_apply(standby, into, (size_t)used);
}

static uint32_t chunk_length(uint64_t chunk)
{
    uint64_t left = MODEL_DISK_BYTES - chunk * JOURNAL_CHUNK_BYTES;
    return left < JOURNAL_CHUNK_BYTES ? (uint32_t)left : JOURNAL_CHUNK_BYTES;
}

/* Reads that are older than what the guest has written since: whatever is recorded, the standby comes to be equal. */
static void fills(void)
{
    static uint8_t disk[MODEL_DISK_BYTES], standby[MODEL_DISK_BYTES], read[MODEL_CHUNKS][JOURNAL_CHUNK_BYTES];
    bool begun[MODEL_CHUNKS] = {false}, done[MODEL_CHUNKS] = {false};
    struct journal *journal = journal_new(MODEL_DISK_BYTES, 1 << 26);
    uint32_t state = (uint32_t)time(NULL), again = 0;
    for (unsigned at = 0; at < MODEL_DISK_BYTES; at++)
        disk[at] = (uint8_t)(at * 7 >> 5);
    journal_record(journal);
    for (unsigned step = 0; step < FILL_STEPS || !(done[0] && done[1] && done[2] && done[3]); step++) {
        uint64_t chunk = next_random(&state) % MODEL_CHUNKS;
        switch (next_random(&state) % (step < FILL_STEPS ? 4 : 2)) {
        case 0:
            CHECK(journal_begin_fill(journal, chunk, 1) == 0);
            memcpy(read[chunk], disk + chunk * JOURNAL_CHUNK_BYTES, chunk_length(chunk));
            begun[chunk] = true;
            break;
        case 1: {
            if (!begun[chunk])
                break;
            int result = journal_fill(journal, chunk, read[chunk], chunk_length(chunk));
            CHECK(result == 0 || result == 1);
            done[chunk] |= result == 0;
            again += (uint32_t)result;
            break;
        }
        case 2: {
            uint64_t offset = next_random(&state) % (MODEL_DISK_BYTES - 600);
            memset(disk + offset, (int)next_random(&state), 512);
            CHECK(journal_write(journal, offset, disk + offset, 512) == 0);
            break;
        }
        default:
            take_all(journal, standby);
        }
    }
    take_all(journal, standby);
    CHECK(again > 0 && memcmp(disk, standby, sizeof disk) == 0);
    /* Half of the room is the guest's. */
    struct journal *small = journal_new(MODEL_DISK_BYTES, 3 * JOURNAL_CHUNK_BYTES);
    journal_record(small);
    CHECK(journal_begin_fill(small, 0, 2) == 0);
    CHECK(journal_fill(small, 0, disk, JOURNAL_CHUNK_BYTES) == 0);
    CHECK(journal_fill(small, 1, disk, JOURNAL_CHUNK_BYTES) == JOURNAL_FILL_WAIT);
    CHECK(taken_records(small) == 1 && journal_fill(small, 1, disk, JOURNAL_CHUNK_BYTES) == 0);
    journal_free(small);
    journal_free(journal);
}

/* A write that no mark has announced makes the map useless, whatever becomes of the write. */
static void watches(void)
{
    size_t bytes = chunk_map_bytes(MODEL_DISK_BYTES);
    struct chunk_map *map = aligned_alloc(CHUNK_MAP_HEAD_BYTES, bytes);
    memset(map, 0, bytes);
    map->disk_bytes = MODEL_DISK_BYTES;
    struct journal *journal = journal_new(MODEL_DISK_BYTES, 1 << 20);
    journal_watch(journal, map, false);
    chunk_map_mark(map, JOURNAL_CHUNK_BYTES - 1, 2);
    /* QEMU rounds up to whole blocks. */
    chunk_map_mark(map, MODEL_DISK_BYTES - 1, 4096);
    chunk_map_mark(map, MODEL_DISK_BYTES, 4096);
    atomic_store(&map->active, 1);
    put(journal, JOURNAL_CHUNK_BYTES - 10, 20, 1);
    put(journal, MODEL_DISK_BYTES - 10, 10, 1);
    CHECK(!map->missed);
    chunk_map_mark(map, 2 * JOURNAL_CHUNK_BYTES, 1);
    CHECK(*chunk_map_set(map, 0) == 0xb && *chunk_map_set(map, 1) == 4);
    put(journal, JOURNAL_CHUNK_BYTES, 2 * JOURNAL_CHUNK_BYTES, 1);
    CHECK(!map->missed);
    memset((void *)chunk_map_set(map, 0), 0, 1);
    put(journal, 5, 5, 1);
    CHECK(map->missed);
    journal_free(journal);
    free(map);
}

int main(void)
{
    random_sequences();
    fills();
    watches();
    merges();
    equal_chunks();
    waits_when_full();
    spills();
    spill_is_full();
    return 0;
}
