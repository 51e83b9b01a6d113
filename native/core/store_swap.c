/*
 * The swap file of the store. Whoever reads or writes it has let go of the lock, so that no guest waits for another one's
 * disk; afterwards an object may be gone, or another, and what was read or written is thrown away.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "store_parts.h"

/* Until the bytes are written the object stays where it is, and whoever asks for it finds it there. */
bool swap_object(struct sp_store *store, struct object *object)
{
    uint8_t data[SP_PAGE_BYTES];
    uint64_t place = object->place, hash = object->hash;
    size_t bytes = bytes_of(place);
    SP_INVARIANT(bytes <= sizeof data);
    uint64_t offset = space_take(&store->swap, bytes);
    if (offset == SPACE_NONE)
        return false;
    memcpy(data, store->pool_map + offset_of(place), bytes);
    store_unlock(store);
    bool written = pwrite(store->swap.fd, data, bytes, (off_t)offset) == (ssize_t)bytes;
    store_lock(store);
    bool same = object->place == place && object->hash == hash && object->patches == 0;
    if (!written || !same) {
        space_give(&store->swap, offset, bytes);
        return false;
    }
    store_move_object(store, object, make_place(OBJECT_SWAPPED, bytes, offset));
    return true;
}

static void read_place(const struct sp_store *store, uint64_t place, struct swap_copy *copy)
{
    SP_INVARIANT(bytes_of(place) <= sizeof copy->packed);
    ssize_t got = pread(store->swap.fd, copy->packed, bytes_of(place), (off_t)offset_of(place));
    copy->place = place;
    copy->error = got < 0 ? errno : (size_t)got != bytes_of(place) ? ENODATA : 0;
}

void swap_read_ahead(struct sp_store *store, int number, uint64_t page, bool urgent, struct swap_copy *copy)
{
    uint64_t place = 0;
    if (!store->has_swap)
        return;
    store_lock_for(store, urgent);
    const struct guest *guest = store_guest(store, number);
    if (guest && page < guest->pages && store_kind(store, guest->slots[page]) == PAGE_SWAPPED)
        place = store->objects[slot_value(guest->slots[page])].place;
    store_unlock(store);
    if (place != copy->place)
        copy->mismatches = 0;
    if (place)
        read_place(store, place, copy);
    else
        copy->place = 0;
}

static int unpack_copy(const struct sp_store *store, const struct object *object, const struct swap_copy *copy,
                       uint8_t *page)
{
    size_t bytes = bytes_of(copy->place);
    if (copy->error)
        return copy->error;
    if (bytes == SP_PAGE_BYTES)
        memcpy(page, copy->packed, bytes);
    else if (!sp_unpack(store->packer, copy->packed, bytes, page))
        return ENODATA;
    return XXH3_64bits(page, SP_PAGE_BYTES) == object->hash ? 0 : ENODATA;
}

/* A page's room in the swap file may have belonged to another one while it was read: only then a wrong hash is no damage. */
enum { MISMATCHES_MAX = 3 };

int swap_rebuild(struct sp_store *store, const struct object *object, struct swap_copy *ahead, uint8_t *page)
{
    /* It went to the swap file just now. */
    if (ahead->place != object->place)
        return EAGAIN;
    int error = unpack_copy(store, object, ahead, page);
    /* What the disk itself has said counts: asking it again may take it another while. */
    if (!error || ahead->error || ++ahead->mismatches == MISMATCHES_MAX)
        return error;
    return EAGAIN;
}
