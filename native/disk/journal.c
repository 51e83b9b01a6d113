/* See journal.h: life, modes and seals. Others: journal_write.c, journal_take.c, journal_known.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "journal_parts.h"

uint64_t journal_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

void journal_free_record(struct journal *journal, struct record *record)
{
    if (record && record->spilled)
        spill_release(journal->spill, record->place, record->place_bytes);
    free(record);
}

void journal_clear(struct journal *journal, struct list *list)
{
    while (list->head)
        journal_free_record(journal, list_remove_head(list));
}

/* ---- life */

struct journal *journal_new(uint64_t disk_bytes, uint64_t bytes_max)
{
    struct journal *journal = calloc(1, sizeof *journal);
    if (!journal)
        return NULL;
    journal->disk_bytes = disk_bytes;
    journal->bytes_max = bytes_max;
    journal->chunks = disk_bytes / JOURNAL_CHUNK_BYTES + (disk_bytes % JOURNAL_CHUNK_BYTES != 0);
    journal->generation = 1;
    pthread_mutex_init(&journal->lock, NULL);
    pthread_cond_init(&journal->room, NULL);
    return journal;
}

void journal_free(struct journal *journal)
{
    journal_clear(journal, &journal->current);
    journal_clear(journal, &journal->sealed);
    spill_free(journal->spill);
    journal_forget_knowledge(journal);
    free(journal->touched);
    pthread_mutex_destroy(&journal->lock);
    pthread_cond_destroy(&journal->room);
    free(journal);
}

uint64_t journal_chunks(const struct journal *journal)
{
    return journal->chunks;
}

/* ---- modes and seals */

void journal_record(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    journal->recording = journal->error == 0;
    pthread_mutex_unlock(&journal->lock);
}

void journal_drop(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    journal->recording = false;
    journal_clear(journal, &journal->sealed);
    journal_clear(journal, &journal->current);
    journal->generation++;
    journal_forget_knowledge(journal);
    pthread_cond_broadcast(&journal->room);
    pthread_mutex_unlock(&journal->lock);
}

void journal_fail(struct journal *journal, int error)
{
    SP_INVARIANT(error > 0);
    if (!journal->error)
        journal->error = error;
    journal->recording = false;
    pthread_cond_broadcast(&journal->room);
}

int journal_spill(struct journal *journal, int fd, uint64_t bytes_max)
{
    struct spill *spill = spill_new(fd, bytes_max);
    if (!spill)
        return ENOMEM;
    pthread_mutex_lock(&journal->lock);
    SP_INVARIANT(!journal->spill);
    journal->spill = spill;
    pthread_cond_broadcast(&journal->room);
    pthread_mutex_unlock(&journal->lock);
    return 0;
}

void journal_seal(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    list_concatenate(&journal->sealed, &journal->current);
    journal->generation++;
    pthread_mutex_unlock(&journal->lock);
}

void journal_unseal(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    list_concatenate(&journal->sealed, &journal->current);
    journal->current = journal->sealed;
    journal->sealed = (struct list){0};
    journal->generation++;
    pthread_mutex_unlock(&journal->lock);
}

void journal_stop(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    journal->stopped = true;
    pthread_cond_broadcast(&journal->room);
    pthread_mutex_unlock(&journal->lock);
}

void journal_read_stats(struct journal *journal, struct journal_stats *stats)
{
    pthread_mutex_lock(&journal->lock);
    *stats = (struct journal_stats){
        .recording = journal->recording,
        .error = journal->error,
        .current_bytes = journal->current.bytes,
        .sealed_bytes = journal->sealed.bytes,
        .writes = journal->writes,
        .written_bytes = journal->written_bytes,
        .equal_bytes = journal->equal_bytes,
        .zero_bytes = journal->zero_bytes,
        .spilled_bytes = journal->current.spilled + journal->sealed.spilled,
        .spilled_total = journal->spilled_total,
    };
    if (journal->waiting_since_ms) {
        uint64_t waited = journal_now_ms() - journal->waiting_since_ms;
        stats->waiting_ms = waited ? waited : 1;
    }
    pthread_mutex_unlock(&journal->lock);
}
