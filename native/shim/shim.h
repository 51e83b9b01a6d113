/*
 * The shim: runs inside stock QEMU by LD_PRELOAD. It has one rule: it must never break QEMU. Whatever fails here only
 * means that the agent tracks writes by comparing memory, and the status file says why.
 *
 * Beside what its files are for it measures flushes within pauses (flush.c), reads ahead on QEMU's control sockets
 * (read_ahead.c), and leaves out wake-ups that are under way (wakeups.c), whatever the environment says.
 *
 * What it is told: environment.h.
 */
#ifndef SUBPAGE_SHIM_H
#define SUBPAGE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "uffd.h"

/* With the memory backends they are no more mappings than the pager takes (core/pager.h). */
#define AUX_BLOCKS_MAX 60

/* Memory backends of one guest. */
#define BACKENDS_MAX 16

/* What `subpage status` can know of the shim. `waiting`: QEMU has not mapped the RAM file yet. */
struct shim_status {
    const char *tracking; /* waiting, ok, failed */
    const char *kind; /* full, user */
    int uffd; /* descriptor in this process, for pidfd_getfd; -1 without */
    const void *address; /* of the latest mapping */
    size_t bytes;
    unsigned mapping_count;
    const char *guard; /* off, on, failed */
    const char *fence; /* off, on, failed */
    const char *forget; /* off, on, failed */
    unsigned backend_count; /* memory backends that are in the file now */
    unsigned unplugged_count; /* those that were, and are no more */
    /* Blocks behind the RAM in its file, in order. */
    unsigned aux_count;
    size_t aux_bytes[AUX_BLOCKS_MAX];
    struct uffd_failure failure;
};

/* Ends the process when they cannot be made. Null paths are left out. */
void fresh_files(const char *ram_bytes, const char *ram, const char *lease, const char *forget);

/* Ends the process if there is such a file, which has the reason. */
void refuse_if_held(const char *path);

void status_write(const char *path, const struct shim_status *status);

/* Registers one more mapping of the RAM file from `offset` on, and notes the outcome. */
void watch_add(struct shim_status *status, const void *address, size_t bytes, uint64_t offset);

/* Whether the address lies in a watched mapping. */
bool watch_covers(const struct shim_status *status, const void *address);

/* Part of the RAM file became zero without a write. */
void watch_discarded(struct shim_status *status, uint64_t offset, uint64_t bytes);

/* One mapping of guest RAM is no more. */
void watch_remove(const struct shim_status *status, const void *address, size_t bytes);

/* Drops the page-table entries of a range of the RAM file in every watched mapping. False with errno set. */
bool watch_forget(const struct shim_status *status, uint64_t offset, uint64_t bytes);

/* The same under the shim's lock, so that no mapping goes meanwhile. ENOENT: no mapping has any of it. */
bool shim_forget(uint64_t offset, uint64_t bytes);

/* Starts a detached thread that gets no signals: those belong to QEMU's own. False with errno set. */
bool shim_thread(void *(*run)(void *));

/* Starts the thread that forgets accesses. False with errno set. */
bool forget_start(const char *path);

typedef void *(*map_function)(void *, size_t, int, int, int, off_t);

/* From now on blocks are appended to this file. */
void aux_start(int ram_fd);

/* Whether QEMU maps a block of guest memory so. */
bool aux_is_block(size_t bytes, int protection, int flags, int fd);

/* Maps it behind all that the RAM file has, whose `offset` it fills in. MAP_FAILED: nothing was mapped, and `status` says why. */
void *aux_map(struct shim_status *status, map_function map, void *address, size_t bytes, int protection, int flags,
              uint64_t *offset);

/* Which ones there are: SUBPAGE_RAM_BACKENDS. */
void backends_start(const char *list);

/* Whether a block of memory of this size is the next memory backend. */
bool backends_is_next(size_t bytes);

/*
 * Maps it at its place in the RAM file `path`, whose `offset` it fills in. Returns the file, which the caller closes; -1 when
 * nothing was mapped, and `status` says why.
 */
int backends_map(struct shim_status *status, map_function map, const char *path, void *address, size_t bytes, int protection,
              uint64_t *offset);

/* Whether the range lies in a memory backend; if so `offset` is where in the file. */
bool backends_cover(const void *address, size_t bytes, uint64_t *offset);

/* Memory is given up: whether there were backends in it, which `status` does not count any more. */
bool backends_unmapped(struct shim_status *status, const void *address, size_t bytes);

struct lease;

/* NULL with errno set. */
struct lease *lease_map(const char *path);

/* Starts the guard thread. False with errno set when it cannot. The path is not used after the return. */
bool guard_start(struct lease *lease, const char *qmp_path);

#endif
