/*
 * The journal of a disk: random sequences against plain arrays, what merging and zeros save, and that it stays within its
 * bounds: a write waits while it is full.
 * build with: native/disk/journal.c native/disk/records.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

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
    for (size_t used; (used = journal_take(journal, into, sizeof into, false)) > 0; all += count)
        CHECK(records_check(into, used, MODEL_DISK_BYTES, &count) == NULL);
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

int main(void)
{
    random_sequences();
    merges();
    equal_chunks();
    waits_when_full();
    return 0;
}
