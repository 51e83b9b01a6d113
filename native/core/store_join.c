/*
 * Finding identical and similar pages among more than the indexes remember: in parts, as the Difference Engine does in five
 * passes with its 12 MB of tables (OSDI 2008). In each round of the sweep the indexes are for one part of the hashes, all of
 * whose pages they hold; the next round has the next part. What an eviction has missed is found when its part comes:
 *
 *   an object becomes a patch when a similar one is whole      (join_object, as the sweep passes over it)
 *   slots go from an object to the identical one               (join_slots, at the end of the round)
 *
 * While everything fits there is one part, and nothing to do here. A slot is one word, and so is an object's place, so the
 * store stays whole after every instruction (store.h).
 */
#include <string.h>

#include "store_parts.h"

enum { PARTS_MAX = 64 };

/* Bits of the hash that neither index uses to choose its buckets by. */
static bool identical_in_part(const struct sp_store *store, uint64_t hash)
{
    return (hash & 0xffffff) % store->parts == store->part;
}

static bool similar_in_part(const struct sp_store *store, uint64_t hash)
{
    return (hash >> 40) % store->parts == store->part;
}

void store_begin_round(struct sp_store *store)
{
    /* Half full: buckets then hardly ever overflow. */
    uint64_t room = ((uint64_t)store->identical_mask + 1) * INDEX_WAYS / 2;
    uint64_t parts = (store->live_objects + room - 1) / room;
    store->part = store->part + 1 < store->parts ? store->part + 1 : 0;
    store->parts = parts < 1 ? 1 : parts < PARTS_MAX ? (uint32_t)parts : PARTS_MAX;
    store->part %= store->parts;
    store->join_guest = 0;
    store->join_page = 0;
}

static void become_patch(struct sp_store *store, struct object *object, uint32_t reference, const uint8_t *patch,
                         size_t bytes)
{
    uint64_t offset = space_take(&store->pool, bytes);
    if (offset == SPACE_NONE)
        return;
    memcpy(store->pool_map + offset, patch, bytes);
    object->reference = reference;
    store->objects[reference].patches++;
    store_move_object(store, object, make_place(OBJECT_PATCH, bytes, offset));
}

void join_object(struct sp_store *store, uint32_t id)
{
    struct object *object = &store->objects[id];
    uint64_t hashes[SP_SKETCH_GROUPS_MAX];
    uint8_t patch[SP_PAGE_RECORD_MAX];
    uint32_t reference;
    bool any = false;
    if (identical_in_part(store, object->hash))
        store_index_identical(store, id);
    if (kind_of(object->place) != OBJECT_WHOLE)
        return;
    const uint8_t *page = store->pool_map + offset_of(object->place);
    store_sketch(store, object->domain, page, hashes);
    for (unsigned i = 0; i < store->similar.shape.groups; i++) {
        hashes[i] = hashes[i] && similar_in_part(store, hashes[i]) ? hashes[i] : 0;
        any = any || hashes[i];
    }
    if (!any)
        return;
    size_t bytes = object->patches > 0 ? 0 : store_find_patch(store, id, page, object->domain, hashes, patch, &reference);
    if (bytes > 0)
        become_patch(store, object, reference, patch, bytes);
    if (kind_of(object->place) == OBJECT_WHOLE)
        sp_similar_add(&store->similar, hashes, id);
}

/* Which of two identical objects stays: one that patches need, else the older one. Never a look at the disk. */
static bool is_better(const struct object *objects, uint32_t one, uint32_t other)
{
    bool needed = objects[one].patches > 0, other_needed = objects[other].patches > 0;
    return needed != other_needed ? needed : one < other;
}

static uint32_t better_twin(struct sp_store *store, uint32_t id)
{
    uint8_t page[SP_PAGE_BYTES], other[SP_PAGE_BYTES];
    const struct object *object = &store->objects[id];
    const uint32_t *bucket = store_bucket(store, object->hash);
    bool rebuilt = false;
    uint32_t best = id;
    if (kind_of(object->place) == OBJECT_SWAPPED)
        return id;
    for (unsigned way = 0; way < INDEX_WAYS && bucket[way] != NO_OBJECT; way++) {
        const struct object *twin = &store->objects[bucket[way]];
        if (bucket[way] == id || twin->place == 0 || twin->hash != object->hash || twin->domain != object->domain ||
            kind_of(twin->place) == OBJECT_SWAPPED || !is_better(store->objects, bucket[way], best))
            continue;
        if (!rebuilt && object_rebuild(store, object, page) != 0)
            return id;
        rebuilt = true;
        if (object_rebuild(store, twin, other) == 0 && memcmp(page, other, SP_PAGE_BYTES) == 0)
            best = bucket[way];
    }
    return best;
}

static bool join_slot(struct sp_store *store, struct guest *guest, uint64_t page)
{
    uint64_t slot = guest->slots[page];
    if (slot_kind(slot) != SLOT_OBJECT)
        return false;
    uint32_t id = (uint32_t)slot_value(slot);
    if (!identical_in_part(store, store->objects[id].hash))
        return false;
    uint32_t twin = better_twin(store, id);
    if (twin == id)
        return false;
    store->objects[twin].refs++;
    __atomic_store_n(&guest->slots[page], make_slot(SLOT_OBJECT, twin), __ATOMIC_RELEASE);
    store->objects[id].refs--;
    object_settle(store, id);
    return true;
}

bool join_slots(struct sp_store *store, uint64_t slots_max, uint64_t *joined)
{
    while (store->join_guest < GUESTS_MAX) {
        struct guest *guest = &store->guests[store->join_guest];
        for (; store->join_page < guest->pages; store->join_page++, slots_max--) {
            if (slots_max == 0)
                return false;
            *joined += join_slot(store, guest, store->join_page);
        }
        store->join_guest++;
        store->join_page = 0;
    }
    return true;
}
