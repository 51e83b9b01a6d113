/* See journal.h. */
#define _GNU_SOURCE
#include "journal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "../core/bytes.h"
#include "../core/invariant.h"
#include "records.h"

enum {
    /* A write that begins within a chunk has parts in one chunk more. */
    SEGMENTS_MAX = JOURNAL_WRITE_BYTES_MAX / JOURNAL_CHUNK_BYTES + 1,
    BLOCK_BYTES = 4096,
    SLOTS = 8192,
    /* Longer records are not merged: their content would be copied under the lock. */
    MERGE_BYTES_MAX = 256 << 10,
};

struct record {
    struct record *next;
    uint64_t offset;
    uint32_t length;
    enum record_kind kind;
    const uint8_t *data; /* in `body`, behind what was taken already */
    size_t cost;
    uint8_t body[];
};

struct list {
    struct record *head, *tail;
    uint64_t bytes;
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
    struct list current, sealed;
    uint64_t generation;
    struct slot slots[SLOTS];
    uint8_t *hashes; /* NULL: nothing is known */
    uint8_t *written; /* a bit for each chunk: somebody wrote to it since */
    uint8_t *touched; /* the same, since it began to be filled; NULL: nothing is filled */
    struct chunk_map *map; /* NULL: nobody watches */
    uint64_t knowledge; /* counts changes of what is known */
    uint64_t waiting_since_ms;
    uint64_t writes, written_bytes, equal_bytes, zero_bytes;
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* ---- lists */

static void append(struct list *list, struct record *record)
{
    record->next = NULL;
    if (list->tail)
        list->tail->next = record;
    else
        list->head = record;
    list->tail = record;
    list->bytes += record->cost;
}

/* `other` goes behind `list`, and is empty then. */
static void concatenate(struct list *list, struct list *other)
{
    if (!other->head)
        return;
    if (list->tail)
        list->tail->next = other->head;
    else
        list->head = other->head;
    list->tail = other->tail;
    list->bytes += other->bytes;
    *other = (struct list){0};
}

/* The caller's from then on. */
static struct record *remove_head(struct list *list)
{
    struct record *record = list->head;
    SP_INVARIANT(record && list->bytes >= record->cost);
    list->head = record->next;
    list->bytes -= record->cost;
    if (!list->head) {
        SP_INVARIANT(list->bytes == 0);
        list->tail = NULL;
    }
    return record;
}

static void clear(struct list *list)
{
    while (list->head)
        free(remove_head(list));
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

static void forget_knowledge(struct journal *journal)
{
    free(journal->hashes);
    free(journal->written);
    journal->hashes = journal->written = NULL;
    journal->knowledge++;
}

void journal_free(struct journal *journal)
{
    clear(&journal->current);
    clear(&journal->sealed);
    forget_knowledge(journal);
    free(journal->touched);
    pthread_mutex_destroy(&journal->lock);
    pthread_cond_destroy(&journal->room);
    free(journal);
}

uint64_t journal_chunks(const struct journal *journal)
{
    return journal->chunks;
}

/* ---- what the standby holds */

static bool is_written(const struct journal *journal, uint64_t chunk)
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

static void mark_written(struct journal *journal, uint64_t offset, uint32_t length)
{
    mark(journal, journal->written, offset, length);
}

void journal_watch(struct journal *journal, struct chunk_map *map)
{
    pthread_mutex_lock(&journal->lock);
    journal->map = map;
    pthread_mutex_unlock(&journal->lock);
}

/* Under the lock: the guest has written there. */
static void note_write(struct journal *journal, uint64_t offset, uint32_t length)
{
    mark(journal, journal->touched, offset, length);
    if (journal->map && !chunk_map_marked(journal->map, offset, length))
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
    forget_knowledge(journal);
    journal->hashes = copy;
    journal->written = written;
    /* The standby will hold what is still to be sent. */
    for (const struct record *record = journal->sealed.head; record; record = record->next)
        mark_written(journal, record->offset, record->length);
    for (const struct record *record = journal->current.head; record; record = record->next)
        mark_written(journal, record->offset, record->length);
    pthread_mutex_unlock(&journal->lock);
    return 0;
}

/* ---- modes and seals */

void journal_record(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    journal->recording = true;
    pthread_mutex_unlock(&journal->lock);
}

void journal_drop(struct journal *journal)
{
    struct list forgotten = {0};
    pthread_mutex_lock(&journal->lock);
    journal->recording = false;
    concatenate(&forgotten, &journal->sealed);
    concatenate(&forgotten, &journal->current);
    journal->generation++;
    forget_knowledge(journal);
    pthread_cond_broadcast(&journal->room);
    pthread_mutex_unlock(&journal->lock);
    clear(&forgotten);
}

void journal_seal(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    concatenate(&journal->sealed, &journal->current);
    journal->generation++;
    pthread_mutex_unlock(&journal->lock);
}

void journal_unseal(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    concatenate(&journal->sealed, &journal->current);
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
        .current_bytes = journal->current.bytes,
        .sealed_bytes = journal->sealed.bytes,
        .writes = journal->writes,
        .written_bytes = journal->written_bytes,
        .equal_bytes = journal->equal_bytes,
        .zero_bytes = journal->zero_bytes,
    };
    if (journal->waiting_since_ms) {
        uint64_t waited = now_ms() - journal->waiting_since_ms;
        stats->waiting_ms = waited ? waited : 1;
    }
    pthread_mutex_unlock(&journal->lock);
}

/* ---- taking */

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

static size_t put_record(uint8_t *into, const struct record *record, uint32_t part)
{
    store64(into, record->offset);
    store32(into + 8, part);
    store32(into + 12, record->kind);
    if (record->kind != RECORD_DATA)
        return RECORD_HEADER_BYTES;
    SP_INVARIANT(part <= record->length);
    memcpy(into + RECORD_HEADER_BYTES, record->data, part);
    return RECORD_HEADER_BYTES + (size_t)part;
}

/*
 * Moves one record, or a part of it. A whole one is copied without the lock, so that a write of the guest does not wait. Returns
 * the bytes used; 0: there is none, or no room.
 */
static size_t take_one(struct journal *journal, uint8_t *into, size_t room, bool sealed, bool first)
{
    struct record *whole = NULL;
    size_t used = 0;
    pthread_mutex_lock(&journal->lock);
    struct list *list = sealed ? &journal->sealed : &journal->current;
    struct record *record = list->head;
    uint32_t part = record ? part_of(record, room, first) : 0;
    /* No later write changes what is on its way, or partly gone. */
    if (!sealed)
        journal->generation++;
    if (part > 0 && part == record->length) {
        whole = remove_head(list);
    } else if (part > 0) {
        used = put_record(into, record, part);
        record->data += part;
        record->offset += part;
        record->length -= part;
    }
    pthread_mutex_unlock(&journal->lock);
    if (whole)
        used = put_record(into, whole, part);
    free(whole);
    SP_INVARIANT(used <= room);
    return used;
}

size_t journal_take(struct journal *journal, uint8_t *into, size_t room, bool sealed)
{
    size_t used = 0, more;
    SP_INVARIANT(room >= JOURNAL_TAKE_BYTES_MIN);
    while ((more = take_one(journal, into + used, room - used, sealed, used == 0)) > 0)
        used += more;
    pthread_mutex_lock(&journal->lock);
    pthread_cond_broadcast(&journal->room);
    pthread_mutex_unlock(&journal->lock);
    return used;
}

/* ---- writing */

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
            journal->hashes && offset == begin && offset + part == end && !is_written(journal, chunk);
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

static struct record *record_new(uint64_t offset, const uint8_t *data, uint32_t length, enum record_kind kind)
{
    size_t body = kind == RECORD_DATA ? length : 0;
    struct record *record = malloc(sizeof *record + body);
    if (!record)
        return NULL;
    *record = (struct record){.offset = offset, .length = length, .kind = kind, .cost = JOURNAL_RECORD_COST + body};
    record->data = record->body;
    if (body)
        memcpy(record->body, data, body);
    return record;
}

/* Neighbours of the same verdict become one record. False: no memory. */
static bool build(const struct segment *segments, size_t count, uint64_t offset, const uint8_t *data, struct list *list)
{
    for (size_t i = 0, next; i < count; i = next) {
        uint32_t length = segments[i].length;
        for (next = i + 1; next < count && segments[next].verdict == segments[i].verdict; next++)
            length += segments[next].length;
        if (segments[i].verdict != VERDICT_EQUAL) {
            struct record *record =
                record_new(offset, data, length, segments[i].verdict == VERDICT_ZEROES ? RECORD_ZEROES : RECORD_DATA);
            if (!record)
                return false;
            append(list, record);
        }
        offset += length;
        data += length;
    }
    return true;
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
    append(&journal->current, record);
    for (uint64_t block = record->offset / BLOCK_BYTES; block <= (record->offset + record->length - 1) / BLOCK_BYTES; block++)
        journal->slots[block % SLOTS] = (struct slot){record, journal->generation};
}

/* Under the lock. False: stopped. */
static bool wait_for_room(struct journal *journal, uint64_t cost)
{
    while (!journal->stopped && journal->recording) {
        uint64_t used = journal->current.bytes + journal->sealed.bytes;
        if (used == 0 || (used <= journal->bytes_max && cost <= journal->bytes_max - used))
            break;
        if (!journal->waiting_since_ms)
            journal->waiting_since_ms = now_ms();
        pthread_cond_wait(&journal->room, &journal->lock);
    }
    journal->waiting_since_ms = 0;
    return !journal->stopped;
}

static void link_all(struct journal *journal, uint64_t offset, size_t count, struct list *list)
{
    for (size_t i = 0; i < count; offset += journal->segments[i++].length) {
        const struct segment *segment = &journal->segments[i];
        if (segment->verdict == VERDICT_EQUAL)
            journal->equal_bytes += segment->length;
        else
            mark_written(journal, offset, segment->length);
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
    note_write(journal, offset, length);
    for (;;) {
        if (!journal->recording) {
            mark_written(journal, offset, length);
            break;
        }
        uint64_t knowledge = journal->knowledge;
        size_t count = cut(journal, offset, length);
        pthread_mutex_unlock(&journal->lock);
        uint64_t cost = judge(journal->segments, count, data);
        bool built = true;
        pthread_mutex_lock(&journal->lock);
        /* Beside this thread only journal_fill adds, and leaves half of the room: what is free now is free later, or nearly so. */
        if (wait_for_room(journal, cost) && journal->recording) {
            pthread_mutex_unlock(&journal->lock);
            built = build(journal->segments, count, offset, data, &list);
            pthread_mutex_lock(&journal->lock);
        }
        if (journal->stopped || !built) {
            error = journal->stopped ? ECANCELED : ENOMEM;
            break;
        }
        if (journal->recording && journal->knowledge == knowledge) {
            link_all(journal, offset, count, &list);
            break;
        }
        /* What the standby holds is another thing now: what was judged by it is judged again. */
        clear(&list);
    }
    if (!error) {
        journal->writes++;
        journal->written_bytes += length;
    }
    pthread_mutex_unlock(&journal->lock);
    clear(&list);
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
    struct record *record = record_new(offset, data, length, zeroes ? RECORD_ZEROES : RECORD_DATA);
    if (!record)
        return false;
    if (zeroes)
        journal->zero_bytes += length;
    mark_written(journal, offset, length);
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
