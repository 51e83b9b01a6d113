/*
 * The watched mappings of the guest's RAM: registered with one userfaultfd, which stays open for the life of the
 * process, since the kernel stops tracking when its last descriptor closes.
 *
 * Callers hold the shim's lock.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim.h"

#define MAPPING_COUNT_MAX 80

struct mapping {
    uint64_t address, bytes, offset;
};

static struct uffd uffd = {.fd = -1, .kind = ""};
static struct mapping mappings[MAPPING_COUNT_MAX];

/* One failure stays: a part of RAM that is not watched makes the whole tracker wrong. */
static bool add(const struct mapping *mapping, unsigned index, struct uffd_failure *failure)
{
    if (index >= MAPPING_COUNT_MAX) {
        *failure = (struct uffd_failure){"keeping so many mappings", ENOSPC};
        return false;
    }
    mappings[index] = *mapping;
    void *address = (void *)(uintptr_t)mapping->address;
    /* The kernel marks what it maps: with huge pages every store would count for 2 MiB. Unsupported is as good. */
    madvise(address, mapping->bytes, MADV_NOHUGEPAGE);
    return (uffd.fd >= 0 || uffd_open(&uffd, failure)) && uffd_register(&uffd, address, mapping->bytes, failure);
}

void watch_add(struct shim_status *status, const void *address, size_t bytes, uint64_t offset)
{
    struct mapping mapping = {(uintptr_t)address, bytes, offset};
    unsigned index = status->mapping_count++;
    status->address = address;
    status->bytes = bytes;
    if (strcmp(status->tracking, "failed") == 0)
        return;
    status->tracking = add(&mapping, index, &status->failure) ? "ok" : "failed";
    status->kind = uffd.kind;
    status->uffd = uffd.fd;
}

bool watch_covers(const struct shim_status *status, const void *address)
{
    for (unsigned i = 0; i < status->mapping_count && i < MAPPING_COUNT_MAX; i++)
        if ((uintptr_t)address >= mappings[i].address &&
            (uintptr_t)address - mappings[i].address < mappings[i].bytes)
            return true;
    return false;
}

void watch_remove(const struct shim_status *status, const void *address, size_t bytes)
{
    uint64_t start = (uintptr_t)address;
    for (unsigned i = 0; i < status->mapping_count && i < MAPPING_COUNT_MAX; i++)
        if (start < mappings[i].address + mappings[i].bytes && mappings[i].address < start + bytes)
            mappings[i].bytes = 0;
}

bool watch_forget(const struct shim_status *status, uint64_t offset, uint64_t bytes)
{
    bool found = false;
    for (unsigned i = 0; i < status->mapping_count && i < MAPPING_COUNT_MAX; i++) {
        const struct mapping *mapping = &mappings[i];
        uint64_t start = offset > mapping->offset ? offset : mapping->offset;
        uint64_t end = offset + bytes, mapping_end = mapping->offset + mapping->bytes;
        if (end > mapping_end)
            end = mapping_end;
        if (start >= end)
            continue;
        found = true;
        void *address = (void *)(uintptr_t)(mapping->address + (start - mapping->offset));
        /* Not by our own wrapper, for which this is QEMU's giving memory back. */
        if (syscall(SYS_madvise, address, end - start, MADV_DONTNEED) < 0)
            return false;
    }
    errno = found ? errno : ENOENT;
    return found;
}

/*
 * Pages that QEMU gives back to the system (the balloon) read as zero afterwards: a change without a write, which the
 * kernel does not report. Disarming them makes the next harvest name them.
 */
void watch_discarded(struct shim_status *status, uint64_t offset, uint64_t bytes)
{
    for (unsigned i = 0; uffd.fd >= 0 && i < status->mapping_count && i < MAPPING_COUNT_MAX; i++) {
        const struct mapping *mapping = &mappings[i];
        uint64_t start = offset > mapping->offset ? offset : mapping->offset;
        uint64_t end = offset + bytes, mapping_end = mapping->offset + mapping->bytes;
        if (end > mapping_end)
            end = mapping_end;
        if (start >= end || uffd_disarm(&uffd, mapping->address + (start - mapping->offset), end - start))
            continue;
        /* Never less than was changed: without tracking the agent finds out at its next harvest, and compares. */
        status->tracking = "failed";
        status->failure = (struct uffd_failure){"UFFDIO_WRITEPROTECT", errno};
        close(uffd.fd);
        uffd.fd = status->uffd = -1;
    }
}
