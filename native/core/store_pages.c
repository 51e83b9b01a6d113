/* Pages into the store and out of it. The contract is in store.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "bytes.h"
#include "store_parts.h"
#include "survey.h"

int store_rebuild(struct sp_store *store, uint64_t slot, struct swap_copy *ahead, uint8_t *page)
{
    uint64_t value = slot_value(slot);
    switch (slot_kind(slot)) {
    case SLOT_WORD:
        for (unsigned i = 0; i < SP_WORDS_PER_PAGE; i++)
            store64(page + 8 * i, value);
        return 0;
    case SLOT_BYTE:
        memset(page, (int)value, SP_PAGE_BYTES);
        return 0;
    case SLOT_OBJECT: {
        const struct object *object = &store->objects[value];
        if (value >= store->object_count)
            return EBADMSG;
        return kind_of(object->place) == OBJECT_SWAPPED ? swap_rebuild(store, object, ahead, page)
                                                        : object_rebuild(store, object, page);
    }
    default:
        return EBADMSG;
    }
}

void store_release(struct sp_store *store, struct guest *guest, uint64_t page)
{
    uint64_t slot = guest->slots[page];
    __atomic_store_n(&guest->slots[page], 0, __ATOMIC_RELEASE);
    if (slot_kind(slot) != SLOT_OBJECT)
        return;
    SP_INVARIANT(slot_value(slot) < store->object_count);
    SP_INVARIANT(store->objects[slot_value(slot)].refs > 0);
    store->objects[slot_value(slot)].refs--;
    object_settle(store, (uint32_t)slot_value(slot));
}

void store_release_some(struct sp_store *store, struct guest *guest, uint64_t *page, uint64_t end)
{
    uint64_t stop = end - *page < LOCKED_PAGES ? end : *page + LOCKED_PAGES;
    for (; *page < stop; ++*page)
        if (guest->slots[*page])
            store_release(store, guest, *page);
}

/* ---- a page becomes a slot */

static bool fill_slot(const uint8_t *page, uint64_t *slot)
{
    if (!sp_page_is_filled(page))
        return false;
    uint64_t word = load64(page);
    if (word >> 56 == 0)
        *slot = make_slot(SLOT_WORD, word);
    else if (word == (word & 0xff) * UINT64_C(0x0101010101010101))
        *slot = make_slot(SLOT_BYTE, word & 0xff);
    else
        return false;
    return true;
}

static uint32_t find_identical(struct sp_store *store, const uint8_t *page, uint64_t hash, uint16_t domain)
{
    uint8_t other[SP_PAGE_BYTES];
    const uint32_t *bucket = store_bucket(store, hash);
    for (unsigned way = 0; way < INDEX_WAYS && bucket[way] != NO_OBJECT; way++) {
        const struct object *object = &store->objects[bucket[way]];
        /* The index forgets nobody: an id may be free by now, or another page. Never a look at the disk: a guest waits. */
        if (object->place == 0 || object->hash != hash || object->domain != domain ||
            kind_of(object->place) == OBJECT_SWAPPED)
            continue;
        if (object_rebuild(store, object, other) == 0 && memcmp(page, other, SP_PAGE_BYTES) == 0)
            return bucket[way];
    }
    return NO_OBJECT;
}

size_t store_find_patch(struct sp_store *store, uint32_t self, const uint8_t *page, uint16_t domain,
                        const uint64_t *hashes, uint8_t *patch, uint32_t *reference)
{
    uint32_t found[SP_SIMILAR_FOUND_MAX];
    uint8_t other[SP_PAGE_RECORD_MAX];
    size_t best = 0, count = sp_similar_find(&store->similar, hashes, found);
    for (size_t i = 0; i < count; i++) {
        const struct object *object = &store->objects[found[i]];
        if (found[i] == self || kind_of(object->place) != OBJECT_WHOLE || object->domain != domain)
            continue;
        size_t bytes = sp_patch_make(page, store->pool_map + offset_of(object->place), other);
        if (bytes == 0 || (best > 0 && bytes >= best))
            continue;
        best = bytes;
        *reference = found[i];
        memcpy(patch, other, bytes);
    }
    return best;
}

static size_t find_patch(struct sp_store *store, const uint8_t *page, uint16_t domain, uint8_t *patch,
                         uint32_t *reference)
{
    uint64_t hashes[SP_SKETCH_GROUPS_MAX];
    store_sketch(store, domain, page, hashes);
    return store_find_patch(store, NO_OBJECT, page, domain, hashes, patch, reference);
}

int store_put(struct sp_store *store, const struct guest *guest, const uint8_t *page, unsigned flags, uint64_t *slot,
              struct store_tally *tally)
{
    uint8_t patch[SP_PAGE_RECORD_MAX];
    uint32_t reference = NO_OBJECT, id;
    if (fill_slot(page, slot)) {
        tally->filled++;
        return 0;
    }
    uint64_t hash = XXH3_64bits(page, SP_PAGE_BYTES);
    id = find_identical(store, page, hash, guest->domain);
    if (id != NO_OBJECT) {
        tally->shared++;
    } else {
        size_t bytes = flags & STORE_PATCH ? find_patch(store, page, guest->domain, patch, &reference) : 0;
        if (bytes == 0 && flags & STORE_SMALLER) {
            *slot = 0;
            tally->left++;
            return 0;
        }
        id = bytes > 0 ? object_make(store, OBJECT_PATCH, patch, bytes, hash, guest->domain, reference)
                       : object_make(store, OBJECT_WHOLE, page, SP_PAGE_BYTES, hash, guest->domain, NO_OBJECT);
        if (id == NO_OBJECT)
            return errno;
        if (bytes > 0)
            store->objects[reference].patches++;
        store_index(store, id, page);
        *(bytes > 0 ? &tally->patched : &tally->whole) += 1;
    }
    store->objects[id].refs++;
    *slot = make_slot(SLOT_OBJECT, id);
    return 0;
}

/* ---- the operations */

static bool runs_fit(const struct guest *guest, const struct sp_run *runs, size_t run_count)
{
    for (size_t i = 0; i < run_count; i++)
        if ((uint64_t)runs[i].first + runs[i].count > guest->pages)
            return false;
    return true;
}

/* Looked at once for all runs, and under the lock that moves a page for its own. */
static bool may_move(struct sp_store *store, int number, const struct sp_run *runs, size_t run_count)
{
    store_lock(store);
    const struct guest *guest = store_guest(store, number);
    bool may = guest && runs_fit(guest, runs, run_count);
    store_unlock(store);
    return may;
}

static int punch(const struct guest *guest, uint64_t first, uint64_t count)
{
    if (count == 0)
        return 0;
    int result;
    do
        result = fallocate(guest->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first * SP_PAGE_BYTES),
                           (off_t)(count * SP_PAGE_BYTES));
    while (result < 0 && errno == EINTR);
    return result < 0 ? errno : 0;
}

/* Punches out those of the pages that have a slot. What cannot be punched is still in the file, and stays there. */
static int punch_stored(struct sp_store *store, struct guest *guest, uint64_t page, uint64_t end)
{
    int error = 0;
    while (page < end) {
        uint64_t last = page;
        while (last < end && guest->slots[last])
            last++;
        int failed = punch(guest, page, last - page);
        for (; failed && page < last; page++)
            store_release(store, guest, page);
        error = error ? error : failed;
        page = last + 1;
    }
    return error;
}

/*
 * Stores up to CHUNK_PAGES pages that are in the RAM file, and punches them out, all under one lock: nobody may bring a
 * page back between its slot and its hole.
 */
static int evict_chunk(struct sp_store *store, struct guest *guest, uint64_t first, uint64_t count, unsigned flags,
                       struct store_tally *tally)
{
    size_t bytes = (size_t)count * SP_PAGE_BYTES;
    ssize_t got = pread(guest->ram_fd, store->chunk, bytes, (off_t)(first * SP_PAGE_BYTES));
    if (got != (ssize_t)bytes)
        return got < 0 ? errno : EIO;
    uint64_t done = 0;
    int error = 0;
    for (; done < count && !error; done++) {
        uint64_t slot;
        /* It is in the file, and what is in the file is newer (store.h). */
        if (guest->slots[first + done])
            store_release(store, guest, first + done);
        error = store_put(store, guest, store->chunk + done * SP_PAGE_BYTES, flags, &slot, tally);
        if (error)
            break;
        __atomic_store_n(&guest->slots[first + done], slot, __ATOMIC_RELEASE);
    }
    tally->failed += count - done;
    int punched = punch_stored(store, guest, first, first + done);
    return error ? error : punched;
}

/* The first page from there on that holds anything, or the end. */
static uint64_t next_data(const struct guest *guest, uint64_t page, uint64_t end)
{
    off_t data = lseek(guest->ram_fd, (off_t)(page * SP_PAGE_BYTES), SEEK_DATA);
    uint64_t first = data < 0 ? end : (uint64_t)data / SP_PAGE_BYTES;
    return first < end ? first : end;
}

static uint64_t next_hole(const struct guest *guest, uint64_t page, uint64_t end)
{
    off_t hole = page < end ? lseek(guest->ram_fd, (off_t)(page * SP_PAGE_BYTES), SEEK_HOLE) : 0;
    uint64_t last = hole > 0 ? (uint64_t)hole / SP_PAGE_BYTES : end;
    return last < end ? last : end;
}

/* How many of a few pages, the first of which holds something, do so: SEEK_HOLE would walk on to the end of all data. */
static uint64_t data_pages(const struct guest *guest, uint64_t first, uint64_t count)
{
    uint64_t pages = count > 0;
    while (pages < count && next_data(guest, first + pages, first + pages + 1) == first + pages)
        pages++;
    return pages;
}

int store_evict(struct sp_store *store, int number, const struct sp_run *runs, size_t run_count, unsigned flags,
                uint64_t pages_max, struct store_tally *tally)
{
    uint64_t moved = 0;
    int error = 0;
    if (!may_move(store, number, runs, run_count))
        return EINVAL;
    for (size_t i = 0; i < run_count && !error && moved < pages_max; i++) {
        uint64_t page = runs[i].first, end = page + runs[i].count;
        while (page < end && !error && moved < pages_max) {
            store_lock(store);
            struct guest *guest = store_guest(store, number);
            if (!guest || !runs_fit(guest, &runs[i], 1)) {
                store_unlock(store);
                return EINVAL;
            }
            uint64_t first = next_data(guest, page, end);
            tally->holes += first - page;
            if (flags & STORE_TRIM)
                error = punch(guest, page, first - page);
            uint64_t most = pages_max - moved < CHUNK_PAGES ? pages_max - moved : CHUNK_PAGES;
            uint64_t count = flags & STORE_TRIM ? next_hole(guest, first, end) - first
                                                : data_pages(guest, first, end - first < most ? end - first : most);
            if (first < end && count > 0 && !(flags & STORE_TRIM))
                error = evict_chunk(store, guest, first, count, flags, tally);
            store_unlock(store);
            page = first + count;
            moved += count;
        }
    }
    return error;
}

int guest_place(struct guest *guest, uint64_t page, const uint8_t *content)
{
    if (guest->pager)
        return pager_place(guest->pager, page, content);
    ssize_t put;
    do
        put = pwrite(guest->ram_fd, content, SP_PAGE_BYTES, (off_t)(page * SP_PAGE_BYTES));
    while (put < 0 && errno == EINTR);
    return put == SP_PAGE_BYTES ? 0 : put < 0 ? errno : ENOSPC;
}

static int give_room(const struct guest *guest, uint64_t first, uint64_t count)
{
    int result;
    do
        result = fallocate(guest->ram_fd, 0, (off_t)(first * SP_PAGE_BYTES), (off_t)(count * SP_PAGE_BYTES));
    while (result < 0 && errno == EINTR);
    return result < 0 ? errno : 0;
}

int store_fetch(struct sp_store *store, int number, const struct sp_run *runs, size_t run_count, unsigned flags,
                uint64_t *moved)
{
    uint8_t content[SP_PAGE_BYTES] __attribute__((aligned(64)));
    struct swap_copy ahead;
    int error = 0;
    *moved = 0;
    swap_copy_begin(&ahead);
    if (!may_move(store, number, runs, run_count))
        return EINVAL;
    for (size_t i = 0; i < run_count && !error; i++) {
        uint64_t page = runs[i].first, end = page + runs[i].count;
        while (page < end && !error) {
            swap_read_ahead(store, number, page, flags & FETCH_URGENT, &ahead);
            store_lock_for(store, flags & FETCH_URGENT);
            struct guest *guest = store_guest(store, number);
            if (!guest || !runs_fit(guest, &runs[i], 1)) {
                store_unlock(store);
                return EINVAL;
            }
            uint64_t first = page, stop = page + 256 < end ? page + 256 : end;
            while (page < stop && guest->slots[page] == 0)
                page++;
            if (flags & FETCH_ROOM && page > first)
                error = give_room(guest, first, page - first);
            /* A later one than was read ahead has its turn in the next round. */
            if (page == first && !error) {
                error = store_rebuild(store, guest->slots[page], &ahead, content);
                bool again = error == EAGAIN;
                error = error ? error : guest_place(guest, page, content);
                if (!error) {
                    store_release(store, guest, page);
                    ++*moved;
                    page++;
                } else if (again)
                    error = 0;
            }
            store_unlock(store);
        }
    }
    return error;
}

int store_drop(struct sp_store *store, int number, const struct sp_run *runs, size_t run_count)
{
    if (!may_move(store, number, runs, run_count))
        return EINVAL;
    for (size_t i = 0; i < run_count; i++) {
        uint64_t page = runs[i].first, end = page + runs[i].count;
        while (page < end) {
            store_lock(store);
            struct guest *guest = store_guest(store, number);
            if (!guest || !runs_fit(guest, &runs[i], 1)) {
                store_unlock(store);
                return EINVAL;
            }
            store_release_some(store, guest, &page, end);
            store_unlock(store);
        }
    }
    return 0;
}

int store_read(struct sp_store *store, int number, uint64_t page, uint8_t *out)
{
    struct swap_copy ahead;
    int error;
    swap_copy_begin(&ahead);
    do {
        swap_read_ahead(store, number, page, false, &ahead);
        store_lock(store);
        struct guest *guest = store_guest(store, number);
        if (!guest || page >= guest->pages)
            error = EINVAL;
        else if (guest->slots[page])
            error = store_rebuild(store, guest->slots[page], &ahead, out);
        else {
            ssize_t got = pread(guest->ram_fd, out, SP_PAGE_BYTES, (off_t)(page * SP_PAGE_BYTES));
            error = got == SP_PAGE_BYTES ? 0 : got < 0 ? errno : EIO;
        }
        store_unlock(store);
    } while (error == EAGAIN);
    return error;
}

int store_hash(struct sp_store *store, int number, const struct sp_run *runs, size_t run_count, uint8_t *out)
{
    uint8_t content[SP_PAGE_BYTES] __attribute__((aligned(64)));
    const struct sp_run one = {0, 1};
    int error = 0;
    for (size_t i = 0; i < run_count && !error; i++)
        for (uint64_t page = runs[i].first; page < (uint64_t)runs[i].first + runs[i].count && !error; page++, out += 16) {
            error = store_read(store, number, page, content);
            if (!error)
                (void)sp_hash_blocks(content, 1, &one, 1, SP_PAGE_BYTES, out);
        }
    return error;
}

enum page_kind store_kind(const struct sp_store *store, uint64_t slot)
{
    static const enum page_kind kinds[] = {[OBJECT_WHOLE] = PAGE_WHOLE,
                                           [OBJECT_PACKED] = PAGE_PACKED,
                                           [OBJECT_PATCH] = PAGE_PATCHED,
                                           [OBJECT_SWAPPED] = PAGE_SWAPPED};
    if (slot == 0)
        return PAGE_RESIDENT;
    if (slot_kind(slot) != SLOT_OBJECT || slot_value(slot) >= store->object_count)
        return PAGE_FILLED;
    enum object_kind kind = kind_of(store->objects[slot_value(slot)].place);
    return kind <= OBJECT_SWAPPED ? kinds[kind] : PAGE_FILLED;
}

int store_kinds(struct sp_store *store, int number, uint8_t *out, size_t pages)
{
    for (size_t page = 0; page < pages;) {
        store_lock(store);
        const struct guest *guest = store_guest(store, number);
        bool fits = guest && pages == guest->pages;
        for (unsigned n = 0; fits && n < LOCKED_PAGES && page < pages; n++, page++)
            out[page] = (uint8_t)store_kind(store, guest->slots[page]);
        store_unlock(store);
        if (!fits)
            return EINVAL;
    }
    return 0;
}
