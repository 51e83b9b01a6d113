/*
 * The shim: runs inside stock QEMU by LD_PRELOAD. It has one rule: it must never break QEMU. Whatever fails here only
 * means that the agent tracks writes by comparing memory, and the status file says why.
 *
 * Environment, read once and then removed so that children of QEMU are not affected:
 *   SUBPAGE_RAM          path of the file that holds the guest's RAM; shared mappings of it are watched
 *   SUBPAGE_SHIM_STATUS  path of the status file to write (JSON, replaced by rename, mode 0600)
 *   SUBPAGE_LEASE        path of the lease file (lease.h); the guard runs when this and the next are set
 *   SUBPAGE_GUARD_QMP    unix socket of a QMP monitor that only the guard uses
 */
#ifndef SUBPAGE_SHIM_H
#define SUBPAGE_SHIM_H

#include <stdbool.h>
#include <stddef.h>

#include "uffd.h"

/* What `subpage status` can know of the shim. `waiting`: QEMU has not mapped the RAM file yet. */
struct shim_status {
    const char *tracking; /* waiting, ok, failed */
    const char *kind; /* full, user */
    int uffd; /* descriptor in this process, for pidfd_getfd; -1 without */
    const void *address; /* of the latest mapping */
    size_t bytes;
    unsigned mapping_count;
    const char *guard; /* off, on, failed */
    struct uffd_failure failure;
};

void status_write(const char *path, const struct shim_status *status);

/* Registers one more mapping of the RAM file from `offset` on, and notes the outcome. */
void watch_add(struct shim_status *status, const void *address, size_t bytes, uint64_t offset);

/* Whether the address lies in a watched mapping. */
bool watch_covers(const struct shim_status *status, const void *address);

/* Part of the RAM file became zero without a write. */
void watch_discarded(struct shim_status *status, uint64_t offset, uint64_t bytes);

/* Starts the guard thread. False with errno set when it cannot. The paths are not used after the return. */
bool guard_start(const char *lease_path, const char *qmp_path);

#endif
