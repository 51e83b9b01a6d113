/*
 * The models of the plugin and the reader that takes their marks: crossing stores, logs of all sizes, the TLB, and threads
 * that store while a reader takes. build with: lab/native/plugin/note.c -pthread
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/take.h"
#include "../../native/plugin/note.h"
#include "../../../test/native/check.h"

enum { PAGES = 10000 };

static char path[64];

static struct share make(uint32_t parts)
{
    struct share share = {0};
    snprintf(path, sizeof path, "/dev/shm/subpage-test-plugin-%d", (int)getpid());
    CHECK(share_create(&share, path, parts, PAGES));
    CHECK(unlink(path) == 0);
    CHECK(share.header->bytes == share_layout(parts, PAGES, NULL));
    return share;
}

static void drop(struct share *share)
{
    CHECK(munmap(share->header, share->header->bytes) == 0);
    free(share->tlbs);
}

static void test_lines(void)
{
    struct share share = make(SHARE_LINES);
    CHECK(!share.dirty && !share.counts && !share.read);
    share_note(&share, 0, 3 * 4096 + 60, 8, true);    /* across lines 0 and 1 */
    share_note(&share, 1, 3 * 4096 + 4092, 4, true);  /* the last line; the next page is another access */
    share_note(&share, 0, 4 * 4096, 4, true);
    share_note(&share, 0, 9 * 4096, 8, false);
    share_note(&share, 0, (PAGES - 1) * 4096ul, 64, true);
    struct sp_run runs[64];
    uint64_t next, maps[3];
    CHECK(sp_find_words(share.lines, PAGES, 0, runs, 64, &next) == 2 && next == PAGES);
    CHECK(runs[0].first == 3 && runs[0].count == 2 && runs[1].first == PAGES - 1 && runs[1].count == 1);
    CHECK(sp_find_words(share.lines, PAGES, 0, runs + 8, 1, &next) == 1 && next == 4 && runs[8].first == 3);
    CHECK(sp_take_words(share.lines, PAGES, runs, 2, maps));
    CHECK(maps[0] == (UINT64_C(1) << 63 | 3) && maps[1] == 1 && maps[2] == 1);
    CHECK(sp_find_words(share.lines, PAGES, 0, runs, 64, &next) == 0);
    runs[0] = (struct sp_run){PAGES - 1, 2};
    CHECK(!sp_take_words(share.lines, PAGES, runs, 1, maps));
    drop(&share);
}

static void test_pml(void)
{
    struct share share = make(SHARE_PML);
    for (int again = 0; again < 3; again++)
        for (uint64_t page = 0; page < 1300; page++)
            share_note(&share, 0, 2 * page * 4096, 8, true);
    share_note(&share, 1, 0, 8, true); /* logged by the other one already */
    share_note(&share, 0, 4096, 8, false);
    struct share_log *log = &share.vcpus[0].pml;
    CHECK(log->logged == 1300 && share.vcpus[1].pml.logged == 0);
    /* 1,300 entries: the 1,281st finds 128 x 10 used up, the 1,025th 256 x 4 and so on. */
    const uint64_t full[SHARE_LOG_SIZES] = {10, 5, 2, 1, 0, 0};
    for (int size = 0; size < SHARE_LOG_SIZES; size++)
        CHECK(log->full[size] == full[size]);
    CHECK(log->left[2] == 3 * 512 - 1300 && log->left[5] == 4096 - 1300);
    struct sp_run runs[40];
    uint64_t next = 0;
    size_t taken = 0;
    while (next < PAGES) {
        size_t made = sp_take_bits(share.dirty, PAGES, next, runs, 40, &next);
        for (size_t run = 0; run < made; run++) {
            CHECK(runs[run].first == 2 * taken && runs[run].count == 1);
            taken++;
        }
    }
    CHECK(taken == 1300);
    /* Armed again: the next store is logged again. */
    share_note(&share, 1, 0, 8, true);
    CHECK(share.vcpus[1].pml.logged == 1);
    drop(&share);
}

static void test_prl(void)
{
    struct share share = make(SHARE_PRL | SHARE_ACCESSES);
    uint32_t entries = share.header->tlb_entries;
    CHECK(entries == TLB_SETS * TLB_WAYS);
    /* What fits the TLB is walked once; what does not, in every round. */
    for (int round = 0; round < 4; round++)
        for (uint64_t page = 0; page < entries; page++)
            share_note(&share, 0, page * 4096, 8, page % 2);
    CHECK(share.vcpus[0].prl.logged == entries && share.counts[7] == 1);
    for (int round = 0; round < 4; round++)
        for (uint64_t page = 0; page < 2 * entries; page++)
            share_note(&share, 1, page * 4096, 8, false);
    CHECK(share.vcpus[1].prl.logged == 8 * (uint64_t)entries && share.counts[7] == 5);
    CHECK(share.counts[2 * entries - 1] == 4 && share.counts[2 * entries] == 0);
    static uint16_t counts[PAGES];
    sp_take_counts((_Atomic uint64_t *)share.counts, PAGES, counts);
    CHECK(counts[7] == 5 && counts[2 * entries - 1] == 4 && share.counts[7] == 0);
    atomic_fetch_add(&share.header->tlb_generation, 1);
    share_note(&share, 0, 7 * 4096, 8, false);
    share_note(&share, 0, 7 * 4096, 8, false);
    CHECK(share.counts[7] == 1);
    share.counts[9] = SHARE_COUNT_MAX;
    share_note(&share, 0, 9 * 4096, 8, false);
    CHECK(share.counts[9] == SHARE_COUNT_MAX);
    struct sp_run runs[64];
    uint64_t next;
    CHECK(sp_take_bits(share.read, PAGES, 0, runs, 64, &next) == 1 && runs[0].count == 2 * entries);
    CHECK(sp_take_bits(share.stored, 64, 0, runs, 64, &next) == 32 && runs[0].first == 1 && next == 64);
    drop(&share);
}

static void test_full_word(void)
{
    struct share share = make(SHARE_PML);
    for (uint64_t page = 60; page < 200; page++)
        share_note(&share, 0, page * 4096, 1, true);
    struct sp_run runs[64];
    uint64_t next;
    CHECK(sp_take_bits(share.dirty, PAGES, 0, runs, 64, &next) == 1 && runs[0].first == 60 && runs[0].count == 140);
    drop(&share);
}

/* Each thread stores into a value and notes it; the reader takes marks and then looks: it must never miss a value. */
enum { WRITERS = 3, STORES = 200000 };
static struct share shared;
static _Atomic uint64_t memory[PAGES];
static atomic_int writers_left;

static void *writer(void *number)
{
    unsigned vcpu = (unsigned)(uintptr_t)number;
    uint64_t random = vcpu + 1;
    for (uint64_t i = 1; i <= STORES; i++) {
        random = random * UINT64_C(6364136223846793005) + 1;
        uint64_t page = (random >> 40) % 64 * WRITERS + vcpu;
        atomic_store_explicit(&memory[page], i, memory_order_relaxed);
        share_note(&shared, vcpu, page * 4096, 8, true);
    }
    atomic_fetch_sub(&writers_left, 1);
    return NULL;
}

static void test_threads(void)
{
    static uint64_t seen[PAGES];
    shared = make(SHARE_LINES);
    pthread_t threads[WRITERS];
    atomic_store(&writers_left, WRITERS);
    for (uintptr_t i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, writer, (void *)i);
    for (bool last = false; !last;) {
        last = atomic_load(&writers_left) == 0;
        struct sp_run runs[128];
        uint64_t next = 0, maps[PAGES];
        while (next < PAGES) {
            size_t made = sp_find_words(shared.lines, PAGES, next, runs, 128, &next);
            CHECK(sp_take_words(shared.lines, PAGES, runs, made, maps));
            for (size_t run = 0; run < made; run++)
                for (uint32_t page = runs[run].first; page < runs[run].first + runs[run].count; page++)
                    seen[page] = atomic_load(&memory[page]);
        }
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    for (uint64_t page = 0; page < PAGES; page++)
        CHECK(seen[page] == memory[page]);
    drop(&shared);
}

int main(void)
{
    test_lines();
    test_pml();
    test_prl();
    test_full_word();
    test_threads();
    return 0;
}
