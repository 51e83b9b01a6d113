/* The parts of the store, for its own files. What each guarantees to a restarted agent: store.h. */
#ifndef SUBPAGE_STORE_PARTS_H
#define SUBPAGE_STORE_PARTS_H

#include <pthread.h>

#include "invariant.h"
#include "pack.h"
#include "space.h"
#include "store.h"

enum object_kind { OBJECT_FREE, OBJECT_WHOLE, OBJECT_PACKED, OBJECT_PATCH, OBJECT_SWAPPED };

/* In the file `objects`. */
struct object {
    uint64_t place; /* one word: kind, length and offset change together */
    uint64_t hash;  /* XXH3-64 of the page */
    uint32_t refs;      /* slots */
    uint32_t patches;   /* objects that are patches of this one */
    uint32_t reference; /* of a patch; of a free object the next free one */
    uint16_t domain;
    uint8_t age;      /* passes of the sweep */
    uint8_t stubborn; /* does not pack */
};
_Static_assert(sizeof(struct object) == 32, "the format of the file `objects`");

#define NO_OBJECT UINT32_MAX

static inline uint64_t make_place(enum object_kind kind, size_t bytes, uint64_t offset)
{
    return (uint64_t)kind << 61 | (uint64_t)bytes << 48 | offset / SPACE_UNIT_BYTES;
}

static inline enum object_kind kind_of(uint64_t place)
{
    return (enum object_kind)(place >> 61);
}

static inline size_t bytes_of(uint64_t place)
{
    return (size_t)(place >> 48 & 0x1fff);
}

static inline uint64_t offset_of(uint64_t place)
{
    return (place & ((UINT64_C(1) << 48) - 1)) * SPACE_UNIT_BYTES;
}

/* A slot: 0 the page is in the RAM file; else a kind above 56 bits: the word or byte that fills the page, or an object. */
enum slot_kind { SLOT_NONE, SLOT_WORD, SLOT_BYTE, SLOT_OBJECT };

static inline uint64_t make_slot(enum slot_kind kind, uint64_t value)
{
    return (uint64_t)kind << 56 | value;
}

static inline enum slot_kind slot_kind(uint64_t slot)
{
    return (enum slot_kind)(slot >> 56);
}

static inline uint64_t slot_value(uint64_t slot)
{
    return slot & ((UINT64_C(1) << 56) - 1);
}

/* Looked at under one lock, where a guest may have millions. */
enum { LOCKED_PAGES = 4096 };

enum { GUESTS_MAX = 1024, GUEST_NAME_MAX = 64, INDEX_WAYS = 16, CHUNK_PAGES = 16 };

struct guest {
    char name[GUEST_NAME_MAX]; /* empty: no guest */
    uint64_t *slots;           /* the mapped file slots-NAME */
    uint64_t pages;
    int ram_fd; /* -1 until attached */
    bool busy;  /* being attached or forgotten, page by page */
    uint16_t domain;
    struct sp_pager *pager; /* serves the faults of its QEMU; NULL without */
};

struct sp_store {
    pthread_mutex_t lock;
    unsigned urgent; /* threads that wait for the lock with a guest waiting for them */
    int directory_fd;
    struct object *objects;
    int objects_fd;
    uint32_t object_count, object_room, object_count_max;
    uint32_t free_object;
    uint64_t live_objects;
    uint8_t *pool_map;
    size_t pool_map_bytes;
    struct space pool, swap;
    bool has_swap;
    uint32_t *identical; /* buckets of INDEX_WAYS ids, the newest first */
    uint32_t identical_mask;
    struct sp_similar similar;
    size_t similar_bytes;
    struct sp_packer *packer;
    struct guest guests[GUESTS_MAX];
    uint32_t cursor; /* of the sweep */
    uint32_t parts, part; /* of the hashes: how many, and which the indexes are for (store_join.c) */
    uint32_t join_guest;  /* where join_slots goes on */
    uint64_t join_page;
    uint8_t chunk[CHUNK_PAGES * SP_PAGE_BYTES] __attribute__((aligned(64)));
};

/* What was read from the swap file, before it is known whether it is still wanted. See swap_copy_begin. */
struct swap_copy {
    uint64_t place; /* of the object; 0: nothing was read */
    int error;
    unsigned mismatches; /* in a row */
    uint8_t packed[SP_PAGE_BYTES];
};

/* With `urgent`, because a guest waits: before everybody else. */
void store_lock_for(struct sp_store *store, bool urgent);
void store_lock(struct sp_store *store);
void store_unlock(struct sp_store *store);

static inline void swap_copy_begin(struct swap_copy *copy)
{
    copy->place = 0;
    copy->mismatches = 0;
}

/* store_swap.c; without the lock, which it takes: reads what a page needs for store_rebuild, if it is swapped. */
void swap_read_ahead(struct sp_store *store, int number, uint64_t page, bool urgent, struct swap_copy *copy);

/* All with the lock held. */

/* Lets go of it while it writes. False when the object stays where it is. */
bool swap_object(struct sp_store *store, struct object *object);
/* Never reads the disk: EAGAIN when what is needed was not read, and the caller is to read it without the lock. */
int swap_rebuild(struct sp_store *store, const struct object *object, struct swap_copy *ahead, uint8_t *page);

/* The guest, or NULL with errno EINVAL: none of that number, or not attached. */
struct guest *store_guest(struct sp_store *store, int number);

/*
 * Writes the page of a slot that is not SLOT_NONE. 0, EBADMSG, ENODATA (store.h), or an errno of reading the swap file;
 * EAGAIN: swap_read_ahead first.
 */
int store_rebuild(struct sp_store *store, uint64_t slot, struct swap_copy *ahead, uint8_t *page);
/* The same of an object that is not swapped: 0 or EBADMSG. */
int object_rebuild(struct sp_store *store, const struct object *object, uint8_t *page);

/* An object with its bytes in the pool; NO_OBJECT with errno. */
uint32_t object_make(struct sp_store *store, enum object_kind kind, const uint8_t *data, size_t bytes, uint64_t hash,
                     uint16_t domain, uint32_t reference);

enum page_kind store_kind(const struct sp_store *store, uint64_t slot);

/* Empties the slot of a page and lets go of its object. */
void store_release(struct sp_store *store, struct guest *guest, uint64_t page);

/* From `page` on, some of those before `end`; moves `page` on. */
void store_release_some(struct sp_store *store, struct guest *guest, uint64_t *page, uint64_t end);

/* Finds what a page becomes, and makes it: a slot that counts already, or 0: it stays. 0, or ENOSPC. */
int store_put(struct sp_store *store, const struct guest *guest, const uint8_t *page, unsigned flags, uint64_t *slot,
              struct store_tally *tally);

/* Makes an object findable; by its content alone. */
void store_index(struct sp_store *store, uint32_t id, const uint8_t *page);
void store_index_identical(struct sp_store *store, uint32_t id);

/* The ids that may have this hash, INDEX_WAYS of them; from the first NO_OBJECT on there are none. */
uint32_t *store_bucket(const struct sp_store *store, uint64_t hash);

void store_sketch(const struct sp_store *store, uint16_t domain, const uint8_t *page, uint64_t *hashes);

/* The shortest patch against a similar whole object other than `self`; its length, 0 without one. */
size_t store_find_patch(struct sp_store *store, uint32_t self, const uint8_t *page, uint16_t domain,
                        const uint64_t *hashes, uint8_t *patch, uint32_t *reference);

/* Frees an object that no slot and no patch needs, and then its reference, if that was its last patch. */
void object_settle(struct sp_store *store, uint32_t id);

/* Gives an object a new place; the old one in the pool is free from then on. */
void store_move_object(struct sp_store *store, struct object *object, uint64_t place);

/* store_join.c: the next part of the hashes; enters an object if it is of this part, or makes it a patch. */
void store_begin_round(struct sp_store *store);
void join_object(struct sp_store *store, uint32_t id);
/* Gives slots identical objects, at most `slots_max` looked at. True at the end of the round; `joined` counts. */
bool join_slots(struct sp_store *store, uint64_t slots_max, uint64_t *joined);

/* Puts the content of a page where its guest sees it: into the RAM file, or through the pager. 0 or an errno. */
int guest_place(struct guest *guest, uint64_t page, const uint8_t *content);

/* pager.c; with the lock held. Returns 0 or an errno. */
int pager_place(struct sp_pager *pager, uint64_t page, const uint8_t *content);

#endif
