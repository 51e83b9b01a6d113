/* The sweep through the objects, which packs and swaps what stays, and the accounts. The contract is in store.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store_parts.h"

/* Passes after which an age is no longer counted; slots that are looked at under one lock, which are quick. */
enum { AGE_MAX = 255, JOIN_SLOTS = 256, JOIN_SLOTS_PER_OBJECT = 16 };

void store_move_object(struct sp_store *store, struct object *object, uint64_t place)
{
    uint64_t before = object->place;
    __atomic_store_n(&object->place, place, __ATOMIC_RELEASE);
    space_give(&store->pool, offset_of(before), bytes_of(before));
}

static bool pack_object(struct sp_store *store, struct object *object)
{
    uint8_t packed[SP_PACK_ROOM];
    size_t bytes = sp_pack(store->packer, store->pool_map + offset_of(object->place), packed);
    uint64_t offset = bytes ? space_take(&store->pool, bytes) : SPACE_NONE;
    if (offset == SPACE_NONE) {
        object->stubborn = bytes == 0;
        return false;
    }
    memcpy(store->pool_map + offset, packed, bytes);
    store_move_object(store, object, make_place(OBJECT_PACKED, bytes, offset));
    return true;
}

int store_sweep(struct sp_store *store, uint64_t objects_max, unsigned age_pack, unsigned age_swap,
                struct store_swept *swept)
{
    *swept = (struct store_swept){0};
    while (swept->seen < objects_max) {
        store_lock(store);
        if (store->cursor >= store->object_count) {
            swept->wrapped = store->parts == 1 || join_slots(store, JOIN_SLOTS, &swept->joined);
            swept->seen += JOIN_SLOTS / JOIN_SLOTS_PER_OBJECT;
            if (swept->wrapped) {
                store->cursor = 0;
                store_begin_round(store);
            }
            store_unlock(store);
            if (swept->wrapped)
                return 0;
            continue;
        }
        struct object *object = &store->objects[store->cursor];
        if (store->parts > 1 && object->place)
            join_object(store, store->cursor);
        store->cursor++;
        enum object_kind kind = kind_of(object->place);
        /* What is packed is no reference: it first meets all parts. */
        unsigned waits = store->parts - 1;
        swept->seen++;
        if (kind != OBJECT_FREE && object->age < AGE_MAX)
            object->age++;
        if (kind == OBJECT_WHOLE && object->patches == 0 && !object->stubborn && object->age >= age_pack + waits)
            swept->packed += pack_object(store, object);
        else if (store->has_swap && object->age >= age_swap &&
                 (kind == OBJECT_PACKED || (kind == OBJECT_WHOLE && object->stubborn && object->patches == 0)))
            swept->swapped += swap_object(store, object);
        store_unlock(store);
    }
    return 0;
}

static enum store_held held_as(const struct sp_store *store, uint64_t slot)
{
    if (slot_kind(slot) != SLOT_OBJECT)
        return HELD_FILLED;
    const struct object *object = &store->objects[slot_value(slot)];
    switch (kind_of(object->place)) {
    case OBJECT_PACKED:
        return HELD_PACKED;
    case OBJECT_PATCH:
        return HELD_PATCHED;
    case OBJECT_SWAPPED:
        return HELD_SWAPPED;
    default:
        return object->refs > 1 ? HELD_SHARED : HELD_WHOLE;
    }
}

/* What a page takes of the pool; of an object that is shared, its part. */
static double pool_bytes(const struct sp_store *store, uint64_t slot)
{
    if (slot_kind(slot) != SLOT_OBJECT)
        return 0;
    const struct object *object = &store->objects[slot_value(slot)];
    if (kind_of(object->place) == OBJECT_SWAPPED)
        return 0;
    return (double)space_piece_bytes(bytes_of(object->place)) / object->refs;
}

int store_share_of(struct sp_store *store, int number, struct store_share *share)
{
    struct stat status;
    double bytes = 0;
    uint64_t stored = 0, page = 0, held[HELD_WAYS] = {0};
    *share = (struct store_share){0};
    do {
        store_lock(store);
        const struct guest *guest = store_guest(store, number);
        if (guest && page == 0) {
            share->pages = guest->pages;
            if (fstat(guest->ram_fd, &status) == 0)
                share->resident = (uint64_t)status.st_blocks * 512 / SP_PAGE_BYTES;
        }
        /* It may be another one by now. */
        bool same = guest && guest->pages == share->pages;
        for (unsigned n = 0; same && n < LOCKED_PAGES && page < share->pages; n++, page++) {
            uint64_t slot = guest->slots[page];
            if (slot == 0)
                continue;
            stored++;
            held[held_as(store, slot)]++;
            bytes += pool_bytes(store, slot);
        }
        store_unlock(store);
        if (!same)
            return EINVAL;
    } while (page < share->pages);
    share->filled = held[HELD_FILLED];
    share->shared = held[HELD_SHARED];
    share->patched = held[HELD_PATCHED];
    share->packed = held[HELD_PACKED];
    share->swapped = held[HELD_SWAPPED];
    share->whole = held[HELD_WHOLE];
    share->bytes = (uint64_t)bytes;
    uint64_t elsewhere = stored + share->resident;
    share->holes = elsewhere < share->pages ? share->pages - elsewhere : 0;
    return 0;
}

int store_map(struct sp_store *store, int number, uint64_t cell_pages, uint32_t (*cells)[HELD_WAYS], size_t cell_count)
{
    uint64_t pages = 0, page = 0;
    memset(cells, 0, cell_count * sizeof *cells);
    do {
        store_lock(store);
        const struct guest *guest = store_guest(store, number);
        if (guest && page == 0)
            pages = guest->pages;
        /* It may be another one by now. */
        bool same = guest && guest->pages == pages && cell_pages > 0 && cell_count == (pages - 1) / cell_pages + 1;
        for (unsigned n = 0; same && n < LOCKED_PAGES && page < pages; n++, page++)
            if (guest->slots[page])
                cells[page / cell_pages][held_as(store, guest->slots[page])]++;
        store_unlock(store);
        if (!same)
            return EINVAL;
    } while (page < pages);
    return 0;
}

void store_totals(struct sp_store *store, struct store_totals *totals)
{
    store_lock(store);
    *totals = (struct store_totals){
        .objects = store->live_objects,
        .pool_bytes = (uint64_t)store->pool.live * SPACE_SLAB_BYTES,
        .swap_bytes = (uint64_t)store->swap.live * SPACE_SLAB_BYTES,
        .book_bytes = (uint64_t)store->object_count * sizeof(struct object) + store->similar_bytes +
                      ((uint64_t)store->identical_mask + 1) * INDEX_WAYS * sizeof(uint32_t) +
                      ((uint64_t)store->pool.slab_room + store->swap.slab_room) * sizeof(struct space_slab),
    };
    for (int i = 0; i < GUESTS_MAX; i++)
        totals->book_bytes += store->guests[i].pages * sizeof(uint64_t);
    store_unlock(store);
}
