/* What the files of the journal share; journal.h is what others see. */
#ifndef SUBPAGE_DISK_JOURNAL_PARTS_H
#define SUBPAGE_DISK_JOURNAL_PARTS_H

#include <pthread.h>

#include "journal.h"
#include "record_list.h"
#include "spill.h"

enum {
    /* A write that begins within a chunk has parts in one chunk more. */
    SEGMENTS_MAX = JOURNAL_WRITE_BYTES_MAX / JOURNAL_CHUNK_BYTES + 1,
    BLOCK_BYTES = 4096,
    SLOTS = 8192,
};

/* The part of a write that lies in one chunk. */
enum verdict { VERDICT_DATA, VERDICT_ZEROES, VERDICT_EQUAL };
struct segment {
    uint32_t length;
    enum verdict verdict;
    bool comparable; /* `expected` is the hash of what the standby holds there */
    uint8_t expected[JOURNAL_HASH_BYTES];
};

/*
 * The last record of the current list that touched a block of the disk, or one with the same slot. If all blocks of a write
 * name one record of the same range, no later record overlaps it, and its content can be replaced.
 */
struct slot {
    struct record *record;
    uint64_t generation; /* of the current list; another one: there is no such record */
};

struct journal {
    uint64_t disk_bytes, bytes_max, chunks;
    struct segment segments[SEGMENTS_MAX]; /* of the writing thread */
    pthread_mutex_t lock; /* over all that follows */
    pthread_cond_t room;
    bool recording, stopped;
    int error; /* what was recorded is not whole any more: why */
    struct list current, sealed;
    struct spill *spill; /* NULL: all is kept in memory */
    uint64_t spilled_total;
    uint64_t generation;
    struct slot slots[SLOTS];
    uint8_t *hashes; /* NULL: nothing is known */
    uint8_t *written; /* a bit for each chunk: somebody wrote to it since */
    uint8_t *touched; /* the same, since it began to be filled; NULL: nothing is filled */
    struct chunk_map *map; /* NULL: nobody watches */
    bool marks; /* in it, what is written */
    uint64_t knowledge; /* counts changes of what is known */
    uint64_t waiting_since_ms;
    uint64_t writes, written_bytes, equal_bytes, zero_bytes;
};

uint64_t journal_now_ms(void);

/* All that follows: under the lock. */

void journal_free_record(struct journal *journal, struct record *record);
void journal_clear(struct journal *journal, struct list *list);
/* From then on nothing is recorded, and whoever takes hears of it. What is there stays: it may be being taken just now. */
void journal_fail(struct journal *journal, int error);

void journal_forget_knowledge(struct journal *journal);
bool journal_is_written(const struct journal *journal, uint64_t chunk);
void journal_mark_written(struct journal *journal, uint64_t offset, uint32_t length);
/* The guest has written there. */
void journal_note_write(struct journal *journal, uint64_t offset, uint32_t length);

#endif
