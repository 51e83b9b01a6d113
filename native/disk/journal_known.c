/* What the standby is known to hold, what was written since, and what the map of written chunks says of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal_parts.h"

void journal_forget_knowledge(struct journal *journal)
{
    free(journal->hashes);
    free(journal->written);
    journal->hashes = journal->written = NULL;
    journal->knowledge++;
}

bool journal_is_written(const struct journal *journal, uint64_t chunk)
{
    return journal->written[chunk / 8] >> chunk % 8 & 1;
}

static void mark(const struct journal *journal, uint8_t *bits, uint64_t offset, uint32_t length)
{
    if (!bits || length == 0)
        return;
    SP_INVARIANT((offset + length - 1) / JOURNAL_CHUNK_BYTES < journal->chunks);
    for (uint64_t chunk = offset / JOURNAL_CHUNK_BYTES; chunk <= (offset + length - 1) / JOURNAL_CHUNK_BYTES; chunk++)
        bits[chunk / 8] |= (uint8_t)(1u << chunk % 8);
}

void journal_mark_written(struct journal *journal, uint64_t offset, uint32_t length)
{
    mark(journal, journal->written, offset, length);
}

void journal_watch(struct journal *journal, struct chunk_map *map, bool marks)
{
    pthread_mutex_lock(&journal->lock);
    journal->map = map;
    journal->marks = marks;
    pthread_mutex_unlock(&journal->lock);
}

void journal_note_write(struct journal *journal, uint64_t offset, uint32_t length)
{
    mark(journal, journal->touched, offset, length);
    if (journal->map && journal->marks)
        chunk_map_mark(journal->map, offset, length);
    else if (journal->map && !chunk_map_marked(journal->map, offset, length))
        atomic_store(&journal->map->missed, 1);
}

int journal_know(struct journal *journal, const uint8_t *hashes, size_t bytes)
{
    uint8_t *copy = NULL, *written = NULL;
    if (bytes != 0 && bytes != journal->chunks * JOURNAL_HASH_BYTES)
        return EINVAL;
    if (bytes != 0) {
        copy = malloc(bytes);
        written = calloc(1, journal->chunks / 8 + 1);
        if (!copy || !written) {
            free(copy);
            free(written);
            return ENOMEM;
        }
        memcpy(copy, hashes, bytes);
    }
    pthread_mutex_lock(&journal->lock);
    journal_forget_knowledge(journal);
    journal->hashes = copy;
    journal->written = written;
    /* The standby will hold what is still to be sent. */
    for (const struct record *record = journal->sealed.head; record; record = record->next)
        journal_mark_written(journal, record->offset, record->length);
    for (const struct record *record = journal->current.head; record; record = record->next)
        journal_mark_written(journal, record->offset, record->length);
    pthread_mutex_unlock(&journal->lock);
    return 0;
}
