/* Writes of the guest, and what was on the disk before, become records; what is written over again replaces what waits. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "../core/bytes.h"
#include "journal_parts.h"

enum {
    /* Longer records are not merged: their content would be copied under the lock. */
    MERGE_BYTES_MAX = 256 << 10,
};

static bool all_zero(const uint8_t *data, size_t length)
{
    if (length < 8)
        return memcmp(data, "\0\0\0\0\0\0\0", length) == 0;
    return load64(data) == 0 && memcmp(data, data + 8, length - 8) == 0;
}

/* Cuts a write at the borders of chunks, and notes what the standby holds in those that it fills. Under the lock. */
static size_t cut(struct journal *journal, uint64_t offset, uint32_t length)
{
    size_t count = 0;
    while (length > 0) {
        uint64_t chunk = offset / JOURNAL_CHUNK_BYTES, begin = chunk * JOURNAL_CHUNK_BYTES;
        uint64_t end = begin + JOURNAL_CHUNK_BYTES < journal->disk_bytes ? begin + JOURNAL_CHUNK_BYTES : journal->disk_bytes;
        uint32_t part = length < end - offset ? length : (uint32_t)(end - offset);
        SP_INVARIANT(count < SEGMENTS_MAX && part > 0);
        struct segment *segment = &journal->segments[count++];
        segment->length = part;
        segment->comparable =
            journal->hashes && offset == begin && offset + part == end && !journal_is_written(journal, chunk);
        if (segment->comparable)
            memcpy(segment->expected, journal->hashes + chunk * JOURNAL_HASH_BYTES, JOURNAL_HASH_BYTES);
        offset += part;
        length -= part;
    }
    return count;
}

/* Returns what the records will count at most. */
static uint64_t judge(struct segment *segments, size_t count, const uint8_t *data)
{
    uint64_t cost = 0;
    for (size_t i = 0; i < count; data += segments[i++].length) {
        struct segment *segment = &segments[i];
        XXH128_canonical_t hash;
        segment->verdict = VERDICT_DATA;
        if (segment->comparable) {
            XXH128_canonicalFromHash(&hash, XXH3_128bits(data, segment->length));
            if (memcmp(&hash, segment->expected, sizeof hash) == 0) {
                segment->verdict = VERDICT_EQUAL;
                continue;
            }
        }
        if (all_zero(data, segment->length))
            segment->verdict = VERDICT_ZEROES;
        else
            cost += segment->length;
        cost += JOURNAL_RECORD_COST;
    }
    return cost;
}

/* `spilled`: its content is still to be put into the spill. NULL: no memory. */
static struct record *record_new(uint64_t offset, const uint8_t *data, uint32_t length, enum record_kind kind, bool spilled)
{
    size_t content = kind == RECORD_DATA ? length : 0, body = spilled ? 0 : content;
    struct record *record = malloc(sizeof *record + body);
    if (!record)
        return NULL;
    *record = (struct record){.offset = offset, .length = length, .kind = kind, .cost = JOURNAL_RECORD_COST + content};
    if (body)
        memcpy(record->body, data, body);
    return record;
}

/* Puts the content of a record that is nobody's yet into the spill. Returns 0 or an errno. */
static int spill_record(struct journal *journal, struct record *record, const uint8_t *data)
{
    pthread_mutex_lock(&journal->lock);
    record->place = spill_place(journal->spill, record->length);
    record->place_bytes = record->length;
    record->spilled = true;
    journal->spilled_total += record->length;
    pthread_mutex_unlock(&journal->lock);
    return spill_write(journal->spill, record->place, data, record->length);
}

/* Neighbours of the same verdict become one record. Without the lock. Returns 0 or an errno. */
static int build(struct journal *journal, size_t count, uint64_t offset, const uint8_t *data, bool spills, struct list *list)
{
    const struct segment *segments = journal->segments;
    for (size_t i = 0, next; i < count; i = next) {
        uint32_t length = segments[i].length;
        for (next = i + 1; next < count && segments[next].verdict == segments[i].verdict &&
                           (!spills || length + segments[next].length <= SPILL_SEGMENT_BYTES);
             next++)
            length += segments[next].length;
        if (segments[i].verdict != VERDICT_EQUAL) {
            enum record_kind kind = segments[i].verdict == VERDICT_ZEROES ? RECORD_ZEROES : RECORD_DATA;
            bool spilled = spills && kind == RECORD_DATA;
            struct record *record = record_new(offset, data, length, kind, spilled);
            int error = !record ? ENOMEM : spilled ? spill_record(journal, record, data) : 0;
            if (record)
                list_append(list, record);
            if (error)
                return error;
        }
        offset += length;
        data += length;
    }
    return 0;
}

/* Puts the content into an earlier record of the same range that no later one overlaps, if there is one. */
static bool merge(struct journal *journal, const struct record *record)
{
    uint64_t first = record->offset / BLOCK_BYTES, last = (record->offset + record->length - 1) / BLOCK_BYTES;
    const struct slot *slot = &journal->slots[first % SLOTS];
    if (record->length > MERGE_BYTES_MAX || slot->generation != journal->generation)
        return false;
    struct record *earlier = slot->record;
    for (uint64_t block = first; block <= last; block++) {
        slot = &journal->slots[block % SLOTS];
        if (slot->generation != journal->generation || slot->record != earlier)
            return false;
    }
    if (earlier->offset != record->offset || earlier->length != record->length || earlier->kind != record->kind)
        return false;
    /* The file would be written under the lock. */
    if (earlier->spilled || record->spilled)
        return false;
    if (record->kind == RECORD_DATA)
        memcpy(earlier->body, record->body, record->length);
    return true;
}

static void link_record(struct journal *journal, struct record *record)
{
    if (merge(journal, record)) {
        free(record);
        return;
    }
    list_append(&journal->current, record);
    for (uint64_t block = record->offset / BLOCK_BYTES; block <= (record->offset + record->length - 1) / BLOCK_BYTES; block++)
        journal->slots[block % SLOTS] = (struct slot){record, journal->generation};
}

enum room { ROOM_NONE, ROOM_MEMORY, ROOM_SPILL };

/* What finds room nowhere is taken into memory when nothing else is there. */
static enum room room_for(const struct journal *journal, uint64_t cost)
{
    uint64_t all = journal->current.bytes + journal->sealed.bytes;
    uint64_t spilled = journal->current.spilled + journal->sealed.spilled, used = all - spilled;
    /* What comes behind something spilled may have room in memory again: the order is that of the lists. */
    if (used <= journal->bytes_max && cost <= journal->bytes_max - used)
        return ROOM_MEMORY;
    if (journal->spill && spill_has_room(journal->spill, cost))
        return ROOM_SPILL;
    return all == 0 ? ROOM_MEMORY : ROOM_NONE;
}

/* Under the lock. ROOM_NONE: nothing is recorded, or it was stopped. */
static enum room wait_for_room(struct journal *journal, uint64_t cost)
{
    enum room room = ROOM_NONE;
    while (!journal->stopped && journal->recording && (room = room_for(journal, cost)) == ROOM_NONE) {
        if (!journal->waiting_since_ms)
            journal->waiting_since_ms = journal_now_ms();
        pthread_cond_wait(&journal->room, &journal->lock);
    }
    journal->waiting_since_ms = 0;
    return journal->stopped || !journal->recording ? ROOM_NONE : room;
}

static void link_all(struct journal *journal, uint64_t offset, size_t count, struct list *list)
{
    for (size_t i = 0; i < count; offset += journal->segments[i++].length) {
        const struct segment *segment = &journal->segments[i];
        if (segment->verdict == VERDICT_EQUAL)
            journal->equal_bytes += segment->length;
        else
            journal_mark_written(journal, offset, segment->length);
        if (segment->verdict == VERDICT_ZEROES)
            journal->zero_bytes += segment->length;
    }
    while (list->head) {
        struct record *record = list->head;
        list->head = record->next;
        link_record(journal, record);
    }
    *list = (struct list){0};
}

/* Hashing and copying happen without the lock: whoever seals, in a pause of the guest, does not wait for them. */
int journal_write(struct journal *journal, uint64_t offset, const uint8_t *data, uint32_t length)
{
    struct list list = {0};
    int error = 0;
    SP_INVARIANT(length <= JOURNAL_WRITE_BYTES_MAX && offset <= journal->disk_bytes &&
                 length <= journal->disk_bytes - offset);
    pthread_mutex_lock(&journal->lock);
    journal_note_write(journal, offset, length);
    for (;;) {
        if (!journal->recording) {
            journal_mark_written(journal, offset, length);
            break;
        }
        uint64_t knowledge = journal->knowledge;
        size_t count = cut(journal, offset, length);
        pthread_mutex_unlock(&journal->lock);
        uint64_t cost = judge(journal->segments, count, data);
        pthread_mutex_lock(&journal->lock);
        /* Beside this thread only journal_fill adds, to memory, and leaves half of it: what is free now is free later, or nearly so. */
        enum room room = wait_for_room(journal, cost);
        if (room != ROOM_NONE) {
            pthread_mutex_unlock(&journal->lock);
            error = build(journal, count, offset, data, room == ROOM_SPILL, &list);
            pthread_mutex_lock(&journal->lock);
        }
        if (journal->stopped)
            error = ECANCELED;
        /* The disk has the write already, and the guest is to go on: whoever takes hears that the record of it is not whole. */
        if (error && room == ROOM_SPILL && !journal->stopped) {
            journal_fail(journal, error);
            error = 0;
        }
        if (error)
            break;
        if (journal->recording && journal->knowledge == knowledge) {
            link_all(journal, offset, count, &list);
            break;
        }
        /* What the standby holds is another thing now: what was judged by it is judged again. */
        journal_clear(journal, &list);
    }
    if (!error) {
        journal->writes++;
        journal->written_bytes += length;
    }
    journal_clear(journal, &list);
    pthread_mutex_unlock(&journal->lock);
    return error;
}

/* ---- what was there before */

int journal_begin_fill(struct journal *journal, uint64_t chunk, uint32_t count)
{
    int error = 0;
    SP_INVARIANT(count <= JOURNAL_FILL_CHUNKS && chunk <= journal->chunks && count <= journal->chunks - chunk);
    pthread_mutex_lock(&journal->lock);
    if (!journal->touched && !(journal->touched = calloc(1, journal->chunks / 8 + 1)))
        error = ENOMEM;
    for (uint64_t n = chunk; !error && n < chunk + count; n++)
        journal->touched[n / 8] &= (uint8_t) ~(1u << n % 8);
    pthread_mutex_unlock(&journal->lock);
    return error;
}

/* Under the lock. False: no memory. */
static bool fill_chunk(struct journal *journal, uint64_t offset, const uint8_t *data, uint32_t length)
{
    bool zeroes = all_zero(data, length);
    struct record *record = record_new(offset, data, length, zeroes ? RECORD_ZEROES : RECORD_DATA, false);
    if (!record)
        return false;
    if (zeroes)
        journal->zero_bytes += length;
    journal_mark_written(journal, offset, length);
    link_record(journal, record);
    return true;
}

int journal_fill(struct journal *journal, uint64_t chunk, const uint8_t *data, uint32_t length)
{
    int again = 0;
    uint64_t offset = chunk * JOURNAL_CHUNK_BYTES;
    SP_INVARIANT(length <= JOURNAL_FILL_CHUNKS * JOURNAL_CHUNK_BYTES && offset + length <= journal->disk_bytes);
    pthread_mutex_lock(&journal->lock);
    uint64_t used = journal->current.bytes + journal->sealed.bytes;
    /* Half of the room is for the guest. */
    if (journal->recording && used > 0 && used + length > journal->bytes_max / 2)
        again = JOURNAL_FILL_WAIT;
    for (uint32_t n = 0; again >= 0 && again != JOURNAL_FILL_WAIT && length > 0; n++, chunk++) {
        uint32_t part = length < JOURNAL_CHUNK_BYTES ? length : JOURNAL_CHUNK_BYTES;
        SP_INVARIANT(journal->touched);
        if (journal->touched[chunk / 8] >> chunk % 8 & 1)
            again |= 1 << n;
        else if (journal->recording && !fill_chunk(journal, chunk * JOURNAL_CHUNK_BYTES, data, part))
            again = -ENOMEM;
        data += part;
        length -= part;
    }
    pthread_mutex_unlock(&journal->lock);
    return again;
}
