/*
 * The map of the chunks of a disk that its guest has written, in a file that outlasts QEMU and its supervisor. The shim in QEMU
 * sets a bit before the write that it stands for reaches the disk, so what a guest that was killed has written is marked.
 *
 *   head     CHUNK_MAP_HEAD_BYTES: struct chunk_map, then what src/disk/chunk-map.ts keeps there
 *   sets     two, each a bit for a chunk, rounded up to CHUNK_MAP_HEAD_BYTES
 *
 * Writes mark the active set. The supervisor makes the other one active within a pause of the guest, when no write is under way, and
 * empties the one that was active before once the standby's copy has all that it stands for.
 */
#ifndef SUBPAGE_DISK_CHUNK_MAP_H
#define SUBPAGE_DISK_CHUNK_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHUNK_MAP_HEAD_BYTES = 4096, CHUNK_MAP_CHUNK_BYTES = 65536 };

#define CHUNK_MAP_MAGIC 0x3150414d50425553u

struct chunk_map {
    uint64_t magic;
    uint64_t disk_bytes;
    uint64_t device, inode; /* of the disk's file */
    _Atomic uint32_t active; /* 0 or 1 */
    _Atomic uint32_t writer; /* the process whose writes are marked; 0: none */
    _Atomic uint32_t missed; /* not 0: a write was not marked, so the map is of no use */
};

static inline uint64_t chunk_map_set_bytes(uint64_t disk_bytes)
{
    uint64_t chunks = disk_bytes / CHUNK_MAP_CHUNK_BYTES + (disk_bytes % CHUNK_MAP_CHUNK_BYTES != 0);
    return (chunks / 8 + CHUNK_MAP_HEAD_BYTES) / CHUNK_MAP_HEAD_BYTES * CHUNK_MAP_HEAD_BYTES;
}

/* Of the whole file; 0: no disk is that large. */
static inline uint64_t chunk_map_bytes(uint64_t disk_bytes)
{
    return disk_bytes > (uint64_t)INT64_MAX / 2 ? 0 : CHUNK_MAP_HEAD_BYTES + 2 * chunk_map_set_bytes(disk_bytes);
}

static inline _Atomic uint8_t *chunk_map_set(struct chunk_map *map, unsigned set)
{
    return (_Atomic uint8_t *)map + CHUNK_MAP_HEAD_BYTES + (set & 1u) * chunk_map_set_bytes(map->disk_bytes);
}

/* What lies behind the end of the disk is no part of it: QEMU may round a length up. */
static inline void chunk_map_mark(struct chunk_map *map, uint64_t offset, uint64_t length)
{
    if (length == 0 || offset >= map->disk_bytes)
        return;
    uint64_t end = length < map->disk_bytes - offset ? offset + length : map->disk_bytes;
    _Atomic uint8_t *set = chunk_map_set(map, atomic_load(&map->active));
    for (uint64_t chunk = offset / CHUNK_MAP_CHUNK_BYTES; chunk <= (end - 1) / CHUNK_MAP_CHUNK_BYTES; chunk++) {
        uint8_t bit = (uint8_t)(1u << chunk % 8);
        if (!(atomic_load_explicit(&set[chunk / 8], memory_order_relaxed) & bit))
            atomic_fetch_or(&set[chunk / 8], bit);
    }
}

static inline bool chunk_map_marked(struct chunk_map *map, uint64_t offset, uint64_t length)
{
    const _Atomic uint8_t *sets[] = {chunk_map_set(map, 0), chunk_map_set(map, 1)};
    if (length == 0)
        return true;
    for (uint64_t chunk = offset / CHUNK_MAP_CHUNK_BYTES; chunk <= (offset + length - 1) / CHUNK_MAP_CHUNK_BYTES; chunk++)
        if (!((atomic_load(&sets[0][chunk / 8]) | atomic_load(&sets[1][chunk / 8])) >> chunk % 8 & 1))
            return false;
    return true;
}

/* NULL with errno set; EINVAL: it is no such map. */
struct chunk_map *chunk_map_open(const char *path, size_t *bytes);

#endif
