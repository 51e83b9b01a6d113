/*
 * The content store: cold pages of many guests in less memory (Difference Engine, OSDI 2008), taken out of the guests' RAM
 * files by punching holes. A page of a guest is either in its RAM file, or here; its slot says which.
 *
 *   filled    one word again and again: in the slot itself
 *   shared    identical pages are one object: found by hash, compared byte by byte, counted
 *   patched   the difference to a whole object, when that is below half a page; the reference stays while patches need
 *             it; a patched page is never a reference, so there are no chains
 *   packed    lz4, zstd or words (pack.h); never a reference
 *   swapped   packed, in the swap file; no page is found to be identical to it, for that would take a look at the disk
 *   whole     as it is; may be shared, may be a reference
 *
 * Objects, pool and slots lie in files that are mapped shared, so they outlive whoever works on them. There is no journal:
 * the slots alone say what is in use. An object is written before a slot names it, a slot is one word, and where an object
 * lies is one word too; so the store is whole after every instruction, and store_open counts references anew. A page that
 * is in the RAM file and in a slot at once was being moved: the RAM file wins (store_attach).
 *
 * Every page that is rebuilt is compared with its hash: a wrong one is an error (EBADMSG, or ENODATA when the swap file
 * does not hold what was written to it), never given out.
 *
 * Every function locks the store, page by page where it works on many, and may be called from any thread.
 */
#ifndef SUBPAGE_STORE_H
#define SUBPAGE_STORE_H

#include "core.h"
#include "similar.h"

struct sp_store;

struct sp_store_options {
    const char *directory; /* exists; on tmpfs, for it holds memory */
    const char *swap;      /* file, made when missing, or block device for packed pages; NULL: none */
    uint64_t pages_max;    /* of all guests together */
    uint64_t index_pages;  /* the indexes are sized for so many; beyond, the sweep works in parts (store_join.c) */
    struct sp_sketch_shape shape;
};

/*
 * Opens or makes a store, and takes up what is in it. NULL with errno; EBADMSG: the files contradict themselves; ENODEV:
 * pages are in a swap file, and none was given.
 */
struct sp_store *store_open(const struct sp_store_options *options);
void store_close(struct sp_store *store);

/*
 * The guest of that name, made when the store has none: its RAM file and the domain within which it shares. Returns its
 * number, or -1 with errno; EEXIST: it is attached already; ERANGE: it is known with another size.
 */
int store_attach(struct sp_store *store, const char *name, const char *ram_path, uint16_t domain);
/* Forgets whatever is stored for it. For a guest that has ended: what was here is gone. */
int store_forget(struct sp_store *store, const char *name);

enum store_flags {
    STORE_PATCH = 1,
    STORE_TRIM = 4, /* move nothing: give back the room of pages that were never written (posix_fallocate) */
    STORE_SMALLER = 2, /* only what is filled, shared or a patch; other pages stay where they are */
};

struct store_tally {
    uint64_t filled, shared, patched, whole; /* pages put, by what became of them */
    uint64_t holes;                          /* nothing was there */
    uint64_t failed;                         /* stayed where they were: no room */
    uint64_t left;                           /* stayed, because they would not become smaller */
};

/*
 * Moves pages of the runs out of the guest's RAM file. Nobody may write to them meanwhile: the guest is paused, or the
 * image is at rest. Stops after `pages_max` pages were looked at. 0 or an errno (ENOSPC: the store is full; all is as it was).
 */
int store_evict(struct sp_store *store, int guest, const struct sp_run *runs, size_t run_count, unsigned flags,
                uint64_t pages_max, struct store_tally *tally);

enum fetch_flags {
    FETCH_ROOM = 1, /* pages that were never written get their room in the RAM file too: whoever maps it can write to all */
    FETCH_URGENT = 2, /* somebody waits for them: before whatever else is moved */
};

/* Moves pages of the runs back. 0 or an errno; what could not be moved is where it was. `moved` counts. */
int store_fetch(struct sp_store *store, int guest, const struct sp_run *runs, size_t run_count, unsigned flags,
                uint64_t *moved);

/* Forgets pages, because their content is about to be replaced whole. */
int store_drop(struct sp_store *store, int guest, const struct sp_run *runs, size_t run_count);

/* Reads one page as the guest would, wherever it is. */
int store_read(struct sp_store *store, int guest, uint64_t page, uint8_t *out);

/* XXH3-128 of every page of the runs as the guest would read it, 16 bytes each, as sp_hash_blocks. Moves nothing. */
int store_hash(struct sp_store *store, int guest, const struct sp_run *runs, size_t run_count, uint8_t *out);

enum page_kind { PAGE_RESIDENT, PAGE_FILLED, PAGE_WHOLE, PAGE_PACKED, PAGE_PATCHED, PAGE_SWAPPED };

/* How each page of the guest is held, a byte each; PAGE_RESIDENT: it is not in the store. */
int store_kinds(struct sp_store *store, int guest, uint8_t *out, size_t pages);

struct store_swept {
    uint64_t seen, packed, swapped;
    uint64_t joined; /* pages that were found to be identical to another one later than at their eviction */
    bool wrapped;    /* the end was reached: a pass is complete */
};

/*
 * Goes on through the objects, at most `objects_max` of them. Whole ones that nothing patches and that have stayed for
 * `age_pack` passes (and as many more as the hashes have parts) are packed; packed ones of `age_swap` passes go to the swap file. Failing is no error: it is a hint.
 */
int store_sweep(struct sp_store *store, uint64_t objects_max, unsigned age_pack, unsigned age_swap,
                struct store_swept *swept);

struct store_share {
    uint64_t pages, resident, holes; /* of the guest's; resident and holes by its RAM file */
    uint64_t filled, shared, patched, packed, swapped, whole; /* pages in the store, each counted once */
    uint64_t bytes; /* of the pool, of objects that are shared the guest's part */
};
int store_share_of(struct sp_store *store, int guest, struct store_share *share);

/* Ways in which a page is in the store, each page in one of them, as struct store_share counts them. */
enum store_held { HELD_FILLED, HELD_SHARED, HELD_PATCHED, HELD_PACKED, HELD_SWAPPED, HELD_WHOLE, HELD_WAYS };

/*
 * How many pages of each cell, `cell_pages` pages in a row, are in the store. The cells cover the guest, the last one perhaps
 * beyond its end, or it is EINVAL.
 */
int store_map(struct sp_store *store, int guest, uint64_t cell_pages, uint32_t (*cells)[HELD_WAYS], size_t cell_count);

struct store_totals {
    uint64_t objects, pool_bytes, swap_bytes, book_bytes;
};
void store_totals(struct sp_store *store, struct store_totals *totals);

#endif
