/* What accesses to stored pages take, seen from the thread that makes them. The contract is in pager.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../shim/uffd.h"
#include "pager.h"
#include "store_parts.h"

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static enum access_kind kind_of_page(struct sp_store *store, uint64_t slot)
{
    if (slot_kind(slot) != SLOT_OBJECT)
        return ACCESS_FILLED;
    uint64_t place = store->objects[slot_value(slot)].place;
    switch (kind_of(place)) {
    case OBJECT_PATCH:
        return ACCESS_PATCHED;
    case OBJECT_SWAPPED:
        return ACCESS_SWAPPED;
    case OBJECT_PACKED:
        return ACCESS_WORDS + store->pool_map[offset_of(place)];
    default:
        return ACCESS_WHOLE;
    }
}

/* Whether the page is in the store, and how. */
static bool look_up(struct sp_store *store, int number, uint32_t page, unsigned *kind)
{
    store_lock(store);
    struct guest *guest = store_guest(store, number);
    uint64_t slot = guest && page < guest->pages ? guest->slots[page] : 0;
    if (slot)
        *kind = kind_of_page(store, slot);
    store_unlock(store);
    return slot != 0;
}

static void time_each(struct sp_store *store, int guest, struct sp_pager *pager, volatile const uint8_t *memory,
                      const uint32_t *pages, size_t *count, struct access_time *times)
{
    struct pager_stats stats;
    size_t wanted = *count;
    *count = 0;
    for (size_t i = 0; i < wanted; i++) {
        struct access_time *time = &times[*count];
        if (!look_up(store, guest, pages[i], &time->kind))
            continue;
        uint64_t began_ns = now_ns();
        (void)memory[(size_t)pages[i] * SP_PAGE_BYTES];
        time->access_ns = now_ns() - began_ns;
        /* Waits until the pager has noted its answer. */
        pager_read(pager, &stats);
        time->answer_ns = stats.last_ns;
        time->rebuild_ns = stats.last_rebuild_ns;
        ++*count;
    }
}

int pager_time_accesses(struct sp_store *store, int guest, int ram_fd, const uint32_t *pages, size_t *count,
                        struct access_time *times)
{
    struct uffd uffd = {.fd = -1};
    struct uffd_failure failure = {0};
    struct stat status;
    if (fstat(ram_fd, &status) < 0)
        return errno;
    size_t bytes = (size_t)status.st_size;
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    uint8_t *memory = pidfd < 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
    int error = memory == MAP_FAILED ? errno : 0;
    if (!error && !uffd_open(&uffd, &failure))
        error = failure.error;
    if (!error) {
        struct pager_mapping mapping = {(uintptr_t)memory, bytes / SP_PAGE_BYTES * SP_PAGE_BYTES, 0};
        struct sp_pager *pager = pager_start(store, guest, uffd.fd, pidfd, &mapping, 1);
        error = pager ? 0 : errno;
        if (pager) {
            time_each(store, guest, pager, memory, pages, count, times);
            (void)pager_stop(pager, true);
        }
    }
    if (memory != MAP_FAILED)
        munmap(memory, bytes);
    if (pidfd >= 0)
        close(pidfd);
    return error;
}
