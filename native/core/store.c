/* Opening a store, taking up what a former process left in it, its guests and its lock. The contract is in store.h. */
#define _GNU_SOURCE
#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store_parts.h"

static const char slots_prefix[] = "slots-";

/* A mutex alone is not fair to whoever comes from another core. */
void store_lock_for(struct sp_store *store, bool urgent)
{
    if (urgent)
        __atomic_add_fetch(&store->urgent, 1, __ATOMIC_RELAXED);
    while (!urgent && __atomic_load_n(&store->urgent, __ATOMIC_RELAXED) > 0)
        sched_yield();
    pthread_mutex_lock(&store->lock);
    if (urgent)
        __atomic_sub_fetch(&store->urgent, 1, __ATOMIC_RELAXED);
}

void store_lock(struct sp_store *store)
{
    store_lock_for(store, false);
}

void store_unlock(struct sp_store *store)
{
    pthread_mutex_unlock(&store->lock);
}

struct guest *store_guest(struct sp_store *store, int number)
{
    if (number >= 0 && number < GUESTS_MAX && store->guests[number].name[0] && store->guests[number].ram_fd >= 0 &&
        !store->guests[number].busy)
        return &store->guests[number];
    errno = EINVAL;
    return NULL;
}

/* ---- files */

static int open_in(const struct sp_store *store, const char *name, bool fresh)
{
    return openat(store->directory_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (fresh ? O_EXCL : 0), 0600);
}

/* Maps a file that is made as long as it may ever be; it is sparse, and takes what is used. */
static void *map_whole(int fd, size_t bytes)
{
    struct stat status;
    if (fstat(fd, &status) < 0 || (status.st_size < (off_t)bytes && ftruncate(fd, (off_t)bytes) < 0))
        return NULL;
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    return map == MAP_FAILED ? NULL : map;
}

/* A block device is used up to its end, and only when nobody else has it: what is on it is lost. */
static bool open_swap(struct sp_store *store, const char *path, uint64_t bytes_max)
{
    struct stat status;
    uint64_t device_bytes = 0;
    bool device = stat(path, &status) == 0 && S_ISBLK(status.st_mode);
    int fd = open(path, device ? O_RDWR | O_CLOEXEC | O_EXCL : O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    space_init(&store->swap, fd, bytes_max);
    if (fd < 0 || (device && ioctl(fd, BLKGETSIZE64, &device_bytes) < 0))
        return false;
    if (device && device_bytes < bytes_max)
        space_init(&store->swap, fd, device_bytes);
    return true;
}

static bool open_files(struct sp_store *store, const struct sp_store_options *options)
{
    uint64_t pool_bytes = options->pages_max * SP_PAGE_BYTES / 4 * 5 + (1 << 20);
    store->object_count_max = (uint32_t)options->pages_max;
    store->objects_fd = open_in(store, "objects", false);
    int pool_fd = open_in(store, "pool", false);
    if (store->objects_fd < 0 || pool_fd < 0)
        return false;
    space_init(&store->pool, pool_fd, pool_bytes);
    /* Readers of patches may look a few bytes past the last piece. */
    store->pool_map_bytes = pool_bytes + SP_PAGE_BYTES;
    store->objects = map_whole(store->objects_fd, options->pages_max * sizeof(struct object));
    store->pool_map = map_whole(pool_fd, store->pool_map_bytes);
    if (!store->objects || !store->pool_map)
        return false;
    store->has_swap = options->swap != NULL;
    return !options->swap || open_swap(store, options->swap, pool_bytes);
}

static bool make_indexes(struct sp_store *store, const struct sp_store_options *options)
{
    uint32_t buckets = 1;
    while ((uint64_t)buckets * INDEX_WAYS < options->index_pages * 3 / 2 && buckets < UINT32_C(1) << 30)
        buckets *= 2;
    store->identical_mask = buckets - 1;
    store->identical = aligned_alloc(64, (size_t)buckets * INDEX_WAYS * sizeof(uint32_t));
    store->similar_bytes = sp_similar_bytes(&options->shape, options->index_pages);
    void *similar = aligned_alloc(64, store->similar_bytes);
    store->similar.entries = similar; /* so that store_close frees it, whatever comes */
    store->packer = sp_packer_new();
    if (!store->identical || !similar || !store->packer) {
        errno = ENOMEM;
        return false;
    }
    memset(store->identical, 0xff, (size_t)buckets * INDEX_WAYS * sizeof(uint32_t));
    sp_similar_init(&store->similar, &options->shape, similar, store->similar_bytes);
    return true;
}

/* ---- guests */

static int find_guest(const struct sp_store *store, const char *name)
{
    for (int i = 0; i < GUESTS_MAX; i++)
        if (strcmp(store->guests[i].name, name) == 0)
            return i;
    return -1;
}

/* Opens or makes slots-NAME in a free place. `pages` 0: as many as the file has. Returns its number or -1 with errno. */
static int open_guest(struct sp_store *store, const char *name, uint64_t pages)
{
    char file[sizeof slots_prefix + GUEST_NAME_MAX];
    struct stat status;
    int number = find_guest(store, "");
    if (number < 0 || !*name || strlen(name) >= GUEST_NAME_MAX || strchr(name, '/')) {
        errno = number < 0 ? ENOSPC : EINVAL;
        return -1;
    }
    snprintf(file, sizeof file, "%s%s", slots_prefix, name);
    int fd = open_in(store, file, pages > 0);
    if (fd < 0)
        return -1;
    /* All slots at once: a full file system must not be found out in the middle of a page. */
    if ((pages > 0 && (errno = posix_fallocate(fd, 0, (off_t)(pages * sizeof(uint64_t)))) != 0) ||
        fstat(fd, &status) < 0) {
        int error = errno;
        close(fd);
        unlinkat(store->directory_fd, file, 0);
        errno = error;
        return -1;
    }
    uint64_t count = (uint64_t)status.st_size / sizeof(uint64_t);
    uint64_t *slots = count ? map_whole(fd, count * sizeof(uint64_t)) : NULL;
    close(fd);
    if (!slots) {
        errno = count ? errno : EBADMSG;
        return -1;
    }
    struct guest *guest = &store->guests[number];
    *guest = (struct guest){.slots = slots, .pages = count, .ram_fd = -1};
    strcpy(guest->name, name);
    return number;
}

static void close_guest(struct guest *guest)
{
    if (guest->slots)
        munmap(guest->slots, guest->pages * sizeof(uint64_t));
    if (guest->ram_fd >= 0)
        close(guest->ram_fd);
    *guest = (struct guest){.ram_fd = -1};
}

/*
 * What is in the RAM file at once with a slot was on its way: the file is what the guest sees, so it wins. Takes the lock for
 * some pages at a time; the guest is busy meanwhile.
 */
static void prefer_ram(struct sp_store *store, struct guest *guest)
{
    off_t end = (off_t)(guest->pages * SP_PAGE_BYTES);
    for (off_t at = 0; at < end;) {
        off_t data = lseek(guest->ram_fd, at, SEEK_DATA);
        if (data < 0 || data >= end)
            return;
        off_t hole = lseek(guest->ram_fd, data, SEEK_HOLE);
        hole = hole < 0 || hole > end ? end : hole;
        for (uint64_t page = (uint64_t)data / SP_PAGE_BYTES; page < (uint64_t)hole / SP_PAGE_BYTES;) {
            store_lock(store);
            store_release_some(store, guest, &page, (uint64_t)hole / SP_PAGE_BYTES);
            store_unlock(store);
        }
        at = hole;
    }
}

int store_attach(struct sp_store *store, const char *name, const char *ram_path, uint16_t domain)
{
    struct stat status;
    int number = -1, ram_fd = open(ram_path, O_RDWR | O_CLOEXEC);
    if (ram_fd < 0)
        return -1;
    store_lock(store);
    if (fstat(ram_fd, &status) < 0)
        goto failed;
    uint64_t pages = (uint64_t)status.st_size / SP_PAGE_BYTES;
    number = *name ? find_guest(store, name) : -1;
    bool known = number >= 0;
    if (number < 0 && (number = open_guest(store, name, pages)) < 0)
        goto failed;
    struct guest *guest = &store->guests[number];
    if (guest->ram_fd >= 0 || guest->busy || guest->pages != pages) {
        errno = guest->ram_fd >= 0 || guest->busy ? EEXIST : ERANGE;
        goto failed;
    }
    guest->ram_fd = ram_fd;
    guest->domain = domain;
    /* A new one has no slots. */
    guest->busy = known;
    store_unlock(store);
    if (known) {
        prefer_ram(store, guest);
        store_lock(store);
        guest->busy = false;
        store_unlock(store);
    }
    return number;
failed:
    store_unlock(store);
    int error = errno;
    close(ram_fd);
    errno = error;
    return -1;
}

int store_forget(struct sp_store *store, const char *name)
{
    char file[sizeof slots_prefix + GUEST_NAME_MAX];
    int error = 0;
    store_lock(store);
    int number = *name ? find_guest(store, name) : -1;
    if (number < 0 || store->guests[number].pager || store->guests[number].busy) {
        error = number < 0 ? ENOENT : EBUSY;
    } else {
        struct guest *guest = &store->guests[number];
        guest->busy = true;
        /* Others have their turn between any two parts. */
        for (uint64_t page = 0; page < guest->pages;) {
            store_release_some(store, guest, &page, guest->pages);
            store_unlock(store);
            store_lock(store);
        }
        close_guest(guest);
        snprintf(file, sizeof file, "%s%s", slots_prefix, name);
        unlinkat(store->directory_fd, file, 0);
    }
    store_unlock(store);
    return error;
}

/* ---- after a restart */

static bool find_guests(struct sp_store *store)
{
    int fd = dup(store->directory_fd);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    bool good = directory != NULL;
    while (good && (entry = readdir(directory)) != NULL)
        if (strncmp(entry->d_name, slots_prefix, sizeof slots_prefix - 1) == 0)
            good = open_guest(store, entry->d_name + sizeof slots_prefix - 1, 0) >= 0;
    if (directory)
        closedir(directory);
    return good;
}

/* Objects up to the last one that a slot or a patch names; 0 with errno EBADMSG when one is out of range. */
static bool count_objects(struct sp_store *store)
{
    uint64_t count = 0;
    for (int i = 0; i < GUESTS_MAX; i++)
        for (uint64_t page = 0; page < store->guests[i].pages; page++) {
            uint64_t slot = store->guests[i].slots[page];
            if (slot_kind(slot) == SLOT_OBJECT && slot_value(slot) >= count)
                count = slot_value(slot) + 1;
        }
    if (count > store->object_count_max)
        return false;
    for (uint64_t id = 0; id < count; id++) {
        const struct object *object = &store->objects[id];
        if (kind_of(object->place) != OBJECT_PATCH || object->reference < count)
            continue;
        /* Before anything looks for it: behind the last object that there can be, nothing is mapped. */
        if (object->reference >= store->object_count_max)
            return false;
        count = object->reference + UINT64_C(1);
    }
    SP_INVARIANT(count <= store->object_count_max);
    store->object_count = store->object_room = (uint32_t)count;
    return true;
}

/* Lengths that the store itself gives each kind; the bits of a kind stand for more than there are. */
static bool is_sound(uint64_t place)
{
    switch (kind_of(place)) {
    case OBJECT_WHOLE:
        return bytes_of(place) == SP_PAGE_BYTES;
    case OBJECT_PACKED:
        return bytes_of(place) <= SP_PACKED_BYTES_MAX;
    case OBJECT_PATCH:
        return bytes_of(place) <= SP_PATCH_BYTES_MAX;
    case OBJECT_SWAPPED:
        return bytes_of(place) <= SP_PAGE_BYTES;
    default:
        return false;
    }
}

static bool claim(struct sp_store *store, const struct object *object)
{
    uint64_t place = object->place;
    errno = EBADMSG;
    if (!is_sound(place))
        return false;
    if (kind_of(place) != OBJECT_SWAPPED)
        return space_claim(&store->pool, offset_of(place), bytes_of(place));
    if (store->has_swap)
        return space_claim(&store->swap, offset_of(place), bytes_of(place));
    errno = ENODEV;
    return false;
}

/* Counts references anew; whatever nobody names is free. False with errno. */
static bool count_references(struct sp_store *store)
{
    struct object *objects = store->objects;
    for (uint32_t id = 0; id < store->object_count; id++)
        objects[id].refs = objects[id].patches = 0;
    for (int i = 0; i < GUESTS_MAX; i++)
        for (uint64_t page = 0; page < store->guests[i].pages; page++) {
            uint64_t slot = store->guests[i].slots[page];
            if (slot_kind(slot) == SLOT_OBJECT)
                objects[slot_value(slot)].refs++;
        }
    for (uint32_t id = 0; id < store->object_count; id++)
        if (objects[id].refs > 0 && kind_of(objects[id].place) == OBJECT_PATCH)
            objects[objects[id].reference].patches++;
    for (uint32_t id = store->object_count; id-- > 0;) {
        struct object *object = &objects[id];
        if (object->refs == 0 && object->patches == 0) {
            object->place = 0;
            object->reference = store->free_object;
            store->free_object = id;
            continue;
        }
        bool whole = kind_of(object->place) == OBJECT_WHOLE;
        if (kind_of(object->place) == OBJECT_FREE || (object->patches > 0 && !whole)) {
            errno = EBADMSG;
            return false;
        }
        if (!claim(store, object))
            return false;
        store->live_objects++;
    }
    return true;
}

static void index_all(struct sp_store *store)
{
    for (uint32_t id = 0; id < store->object_count; id++) {
        const struct object *object = &store->objects[id];
        if (object->place)
            store_index(store, id, store->pool_map + offset_of(object->place));
    }
}

static bool recover(struct sp_store *store)
{
    if (!find_guests(store))
        return false;
    if (!count_objects(store)) {
        errno = EBADMSG;
        return false;
    }
    if (!count_references(store))
        return false;
    space_settle(&store->pool);
    if (store->has_swap)
        space_settle(&store->swap);
    index_all(store);
    return true;
}

struct sp_store *store_open(const struct sp_store_options *options)
{
    if (options->pages_max == 0 || options->pages_max >= NO_OBJECT || !sp_sketch_shape_valid(&options->shape)) {
        errno = EINVAL;
        return NULL;
    }
    struct sp_store *store = aligned_alloc(64, (sizeof *store + 63) / 64 * 64);
    if (!store)
        return NULL;
    memset(store, 0, sizeof *store);
    pthread_mutex_init(&store->lock, NULL);
    store->free_object = NO_OBJECT;
    store->parts = 1;
    store->objects_fd = store->pool.fd = store->swap.fd = -1;
    for (int i = 0; i < GUESTS_MAX; i++)
        store->guests[i].ram_fd = -1;
    store->directory_fd = open(options->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->directory_fd >= 0 && open_files(store, options) && make_indexes(store, options) && recover(store))
        return store;
    int error = errno;
    store_close(store);
    errno = error;
    return NULL;
}

static void close_if(int fd)
{
    if (fd >= 0)
        close(fd);
}

void store_close(struct sp_store *store)
{
    for (int i = 0; i < GUESTS_MAX; i++)
        close_guest(&store->guests[i]);
    if (store->objects)
        munmap(store->objects, (size_t)store->object_count_max * sizeof(struct object));
    if (store->pool_map)
        munmap(store->pool_map, store->pool_map_bytes);
    close_if(store->objects_fd);
    close_if(store->pool.fd);
    close_if(store->swap.fd);
    close_if(store->directory_fd);
    space_free(&store->pool);
    space_free(&store->swap);
    free(store->identical);
    free(store->similar.entries);
    sp_packer_free(store->packer);
    pthread_mutex_destroy(&store->lock);
    free(store);
}
