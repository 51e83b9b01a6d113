/* Takes records out of a journal, for the wire. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "../core/bytes.h"
#include "journal_parts.h"

/* How much of a record goes into `room`: all, or up to the border of a block where the rest of the buffer has room for one. */
static uint32_t part_of(const struct record *record, size_t room, bool first)
{
    if (room <= RECORD_HEADER_BYTES)
        return room == RECORD_HEADER_BYTES && record->kind == RECORD_ZEROES ? record->length : 0;
    size_t space = room - RECORD_HEADER_BYTES;
    if (record->kind == RECORD_ZEROES || record->length <= space)
        return record->length;
    uint64_t border = (record->offset + space) / BLOCK_BYTES * BLOCK_BYTES;
    if (border > record->offset)
        return (uint32_t)(border - record->offset);
    return first ? (uint32_t)space : 0;
}

/* Returns 0 or an errno. */
static int put_record(const struct journal *journal, uint8_t *into, const struct record *record, uint32_t part)
{
    store64(into, record->offset);
    store32(into + 8, part);
    store32(into + 12, record->kind);
    if (record->kind != RECORD_DATA)
        return 0;
    SP_INVARIANT(part <= record->length);
    if (record->spilled)
        return spill_read(journal->spill, record->place + record->taken, into + RECORD_HEADER_BYTES, part);
    memcpy(into + RECORD_HEADER_BYTES, record->body + record->taken, part);
    return 0;
}

/*
 * Moves one record, or a part of it, copied without the lock, so that a write of the guest does not wait: this thread alone removes
 * records and drops them, and none that it has looked at is merged into. Returns the bytes used; 0: there is none, or no room; or a
 * negative errno.
 */
static ssize_t take_one(struct journal *journal, uint8_t *into, size_t room, bool sealed, bool first)
{
    struct list *list = sealed ? &journal->sealed : &journal->current;
    pthread_mutex_lock(&journal->lock);
    struct record *record = list->head;
    uint32_t part = record ? part_of(record, room, first) : 0;
    int error = journal->error;
    /* No later write changes what is on its way, or partly gone. */
    if (!sealed)
        journal->generation++;
    pthread_mutex_unlock(&journal->lock);
    if (error || part == 0)
        return -error;
    error = put_record(journal, into, record, part);
    size_t used = RECORD_HEADER_BYTES + (record->kind == RECORD_DATA ? (size_t)part : 0);
    SP_INVARIANT(used <= room);
    pthread_mutex_lock(&journal->lock);
    /* It may have failed meanwhile, and have forgotten all. */
    if (error && !journal->error)
        journal_fail(journal, error);
    error = journal->error;
    if (!error && part == record->length) {
        SP_INVARIANT(list->head == record);
        journal_free_record(journal, list_remove_head(list));
    } else if (!error) {
        record->taken += part;
        record->offset += part;
        record->length -= part;
    }
    pthread_mutex_unlock(&journal->lock);
    return error ? -error : (ssize_t)used;
}

ssize_t journal_take(struct journal *journal, uint8_t *into, size_t room, bool sealed)
{
    size_t used = 0;
    ssize_t more;
    SP_INVARIANT(room >= JOURNAL_TAKE_BYTES_MIN);
    while ((more = take_one(journal, into + used, room - used, sealed, used == 0)) > 0)
        used += (size_t)more;
    pthread_mutex_lock(&journal->lock);
    pthread_cond_broadcast(&journal->room);
    pthread_mutex_unlock(&journal->lock);
    return more < 0 ? more : (ssize_t)used;
}
