/* Objects: what pages become in the store, and how they are found and made whole again. The contract is in store_parts.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "store_parts.h"

uint32_t *store_bucket(const struct sp_store *store, uint64_t hash)
{
    return store->identical + (size_t)((uint32_t)(hash >> 32) & store->identical_mask) * INDEX_WAYS;
}

/* Different domains never meet, so what one guest holds cannot be found out from another (docs/security.md). */
void store_sketch(const struct sp_store *store, uint16_t domain, const uint8_t *page, uint64_t *hashes)
{
    sp_sketch(page, &store->similar.shape, hashes);
    for (unsigned i = 0; i < store->similar.shape.groups; i++)
        if (hashes[i])
            hashes[i] ^= domain * UINT64_C(0x9e3779b97f4a7c15);
}

void store_index_identical(struct sp_store *store, uint32_t id)
{
    uint32_t *bucket = store_bucket(store, store->objects[id].hash);
    unsigned way = 0;
    while (way < INDEX_WAYS - 1 && bucket[way] != NO_OBJECT && bucket[way] != id)
        way++;
    memmove(bucket + 1, bucket, way * sizeof *bucket);
    bucket[0] = id;
}

void store_index(struct sp_store *store, uint32_t id, const uint8_t *page)
{
    const struct object *object = &store->objects[id];
    store_index_identical(store, id);
    if (kind_of(object->place) != OBJECT_WHOLE)
        return;
    uint64_t hashes[SP_SKETCH_GROUPS_MAX];
    store_sketch(store, object->domain, page, hashes);
    sp_similar_add(&store->similar, hashes, id);
}

static uint32_t take_object(struct sp_store *store)
{
    enum { STEP = 2048 };
    uint32_t id = store->free_object;
    if (id != NO_OBJECT) {
        store->free_object = store->objects[id].reference;
        return id;
    }
    if (store->object_count == store->object_count_max) {
        errno = ENOSPC;
        return NO_OBJECT;
    }
    if (store->object_count == store->object_room) {
        if (fallocate(store->objects_fd, 0, (off_t)store->object_room * (off_t)sizeof(struct object),
                      (off_t)STEP * (off_t)sizeof(struct object)) < 0)
            return NO_OBJECT;
        store->object_room += STEP;
    }
    return store->object_count++;
}

static void give_object(struct sp_store *store, uint32_t id)
{
    struct object *object = &store->objects[id];
    __atomic_store_n(&object->place, 0, __ATOMIC_RELEASE);
    object->refs = object->patches = 0;
    object->reference = store->free_object;
    store->free_object = id;
}

void object_settle(struct sp_store *store, uint32_t id)
{
    for (;;) {
        struct object *object = &store->objects[id];
        uint64_t place = object->place;
        uint32_t reference = object->reference;
        if (object->refs > 0 || object->patches > 0)
            return;
        give_object(store, id);
        store->live_objects--;
        space_give(kind_of(place) == OBJECT_SWAPPED ? &store->swap : &store->pool, offset_of(place), bytes_of(place));
        if (kind_of(place) != OBJECT_PATCH)
            return;
        id = reference;
        SP_INVARIANT(id < store->object_count && store->objects[id].patches > 0);
        store->objects[id].patches--;
    }
}

uint32_t object_make(struct sp_store *store, enum object_kind kind, const uint8_t *data, size_t bytes, uint64_t hash,
                     uint16_t domain, uint32_t reference)
{
    uint32_t id = take_object(store);
    if (id == NO_OBJECT)
        return NO_OBJECT;
    SP_INVARIANT(id < store->object_count && bytes > 0 && bytes <= SP_PAGE_BYTES);
    uint64_t offset = space_take(&store->pool, bytes);
    if (offset == SPACE_NONE) {
        int error = errno;
        give_object(store, id);
        errno = error;
        return NO_OBJECT;
    }
    /* A slab that begins is mapped at once: eight faults in the midst of a guest's pause would take longer. */
    if (offset % SPACE_SLAB_BYTES == 0)
        (void)madvise(store->pool_map + offset, SPACE_SLAB_BYTES, MADV_POPULATE_WRITE);
    SP_INVARIANT(offset + bytes <= store->pool_map_bytes);
    memcpy(store->pool_map + offset, data, bytes);
    struct object *object = &store->objects[id];
    *object = (struct object){.hash = hash, .reference = reference, .domain = domain};
    __atomic_store_n(&object->place, make_place(kind, bytes, offset), __ATOMIC_RELEASE);
    store->live_objects++;
    return id;
}

int object_rebuild(struct sp_store *store, const struct object *object, uint8_t *page)
{
    uint64_t place = object->place;
    /* What a guest's fault is served from; a swapped object has no place here. */
    if (kind_of(place) == OBJECT_FREE || kind_of(place) >= OBJECT_SWAPPED)
        return EBADMSG;
    SP_INVARIANT(bytes_of(place) <= SP_PAGE_BYTES);
    SP_INVARIANT(offset_of(place) + SP_PAGE_BYTES <= store->pool_map_bytes);
    const uint8_t *data = store->pool_map + offset_of(place);
    int error = 0;
    switch (kind_of(place)) {
    case OBJECT_WHOLE:
        memcpy(page, data, SP_PAGE_BYTES);
        break;
    case OBJECT_PACKED:
        error = sp_unpack(store->packer, data, bytes_of(place), page) ? 0 : EBADMSG;
        break;
    case OBJECT_PATCH: {
        const struct object *reference = &store->objects[object->reference];
        if (kind_of(reference->place) != OBJECT_WHOLE)
            return EBADMSG;
        memcpy(page, store->pool_map + offset_of(reference->place), SP_PAGE_BYTES);
        error = sp_patch_apply(page, data, bytes_of(place)) ? 0 : EBADMSG;
        break;
    }
    default:
        return EBADMSG;
    }
    return error || XXH3_64bits(page, SP_PAGE_BYTES) == object->hash ? error : EBADMSG;
}
