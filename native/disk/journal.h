/*
 * The journal of a disk: the writes that a guest has made and the standby does not hold yet, in order. One thread writes
 * (nbd.c); the thread of the supervisor seals, takes and empties. It is redo in the sense of Remus: whoever applies the
 * records in their order to what the disk was before has the disk as it is now.
 *
 * There are two lists: `current`, what was written since the last seal, and `sealed`, what belongs to the checkpoint that is
 * being sent. All that is here is absolute content, so applying a record twice does no harm.
 */
#ifndef SUBPAGE_DISK_JOURNAL_H
#define SUBPAGE_DISK_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "chunk_map.h"

enum {
    JOURNAL_CHUNK_BYTES = 65536,
    JOURNAL_HASH_BYTES = 16,
    /* The longest write that is taken. */
    JOURNAL_WRITE_BYTES_MAX = 32 << 20,
    /* What a record counts beside its data. */
    JOURNAL_RECORD_COST = 64,
    /* The smallest buffer that records can be taken into. */
    JOURNAL_TAKE_BYTES_MIN = 17,
    /* Chunks of what was on the disk before, which are recorded at a time. */
    JOURNAL_FILL_CHUNKS = 16,
};

struct journal;

struct journal_stats {
    bool recording;
    int error; /* why nothing is recorded any more, and each take fails; 0: nothing was lost */
    uint64_t current_bytes, sealed_bytes; /* data, and JOURNAL_RECORD_COST a record */
    uint64_t spilled_bytes; /* data of these that is in the file */
    uint64_t spilled_total; /* and that ever was */
    uint64_t writes, written_bytes;
    uint64_t equal_bytes; /* not recorded: the standby holds the same */
    uint64_t zero_bytes; /* recorded without data */
    uint64_t waiting_ms; /* since the present write waits for room; 0: none does */
};

/* Begins in the mode `drop`. `bytes_max`: of both lists, in memory. NULL: no memory. */
struct journal *journal_new(uint64_t disk_bytes, uint64_t bytes_max);
/* Nobody uses it any more. */
void journal_free(struct journal *journal);

uint64_t journal_chunks(const struct journal *journal);

/*
 * What the standby's disk holds: XXH3-128 of each chunk, JOURNAL_HASH_BYTES * journal_chunks() bytes, or none: nothing is
 * known. From then on the part of a write that fills a whole chunk which nobody has written since, with what the standby
 * holds there, is not recorded. Returns 0 or an errno.
 */
int journal_know(struct journal *journal, const uint8_t *hashes, size_t bytes);

/*
 * From now on each write is one of the guest's, which has been marked in the map before it came here. One that is not makes the map
 * useless, which is noted there. Or, with `marks`, it is marked here. The map stays the caller's, and outlasts the journal.
 */
void journal_watch(struct journal *journal, struct chunk_map *map, bool marks);

/*
 * What was on the disk before is read by the caller, while the guest writes: after this call for a chunk, the content is recorded by
 * journal_fill unless the guest has written to the chunk since. Then it may be older, and must be read again. Returns 0 or an errno.
 */
int journal_begin_fill(struct journal *journal, uint64_t chunk, uint32_t count);

enum { JOURNAL_FILL_WAIT = 1 << JOURNAL_FILL_CHUNKS };
/*
 * Records the content of up to JOURNAL_FILL_CHUNKS chunks. Returns a bit for each that must be read again, JOURNAL_FILL_WAIT when there
 * is no room yet and nothing was done, or a negative errno. For the thread that takes.
 */
int journal_fill(struct journal *journal, uint64_t chunk, const uint8_t *data, uint32_t length);

/* From now on writes are recorded. */
void journal_record(struct journal *journal);
/* Forgets both lists and what is known; from now on writes are forgotten at once. Frees a write that waits for room. */
void journal_drop(struct journal *journal);

/*
 * From now on what has no room in memory goes into a file without a name (spill.h), which is the journal's then. Once. If that cannot be
 * written or read, nothing more is recorded, and each take says so: the guest goes on, and what was taken before is no whole epoch.
 * Returns 0 or an errno.
 */
int journal_spill(struct journal *journal, int fd, uint64_t bytes_max);

/* The current list goes behind the sealed one, and is empty then. */
void journal_seal(struct journal *journal);
/* The sealed list goes back, before the current one. */
void journal_unseal(struct journal *journal);

/*
 * Moves records out of one list, in order, into `into` as checkDisk takes them (records.h); the last one is split where it
 * does not fit. `room` is JOURNAL_TAKE_BYTES_MIN or more. Returns the bytes used; 0: the list is empty; or a negative errno: what was
 * recorded is not whole, because of that.
 */
ssize_t journal_take(struct journal *journal, uint8_t *into, size_t room, bool sealed);

void journal_read_stats(struct journal *journal, struct journal_stats *stats);

/*
 * The guest writes; the caller has checked that the range lies on the disk and is no longer than JOURNAL_WRITE_BYTES_MAX.
 * Waits while the journal is full, memory and file; a write that is larger than the whole journal is taken when the journal is empty. Returns 0, ENOMEM
 * (then nothing of it is recorded), or ECANCELED after journal_stop. For one thread.
 */
int journal_write(struct journal *journal, uint64_t offset, const uint8_t *data, uint32_t length);
/* A write that waits, and each that comes later, ends with ECANCELED. */
void journal_stop(struct journal *journal);

#endif
