/* See pager.h. */
#define _GNU_SOURCE
#include "pager.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "store_parts.h"

enum { MESSAGES = 16, RETRY_NS = 20 * 1000 * 1000, LATE_MAX = 512 };

/* A fault for the second thread: it waits for the disk, or could not be answered and is woken when it is due. */
struct late {
    uint64_t address, began_ns;
    uint64_t due_ns; /* 0: to be answered now */
    bool write;
};

struct sp_pager {
    struct sp_store *store;
    int guest, uffd, pidfd, stop;
    pthread_t thread, late_thread;
    pthread_mutex_t late_lock;
    pthread_cond_t late_changed;
    struct late late[LATE_MAX]; /* under late_lock, and so are the next two */
    size_t late_count;
    bool late_over;
    size_t mapping_count;
    struct pager_mapping mappings[PAGER_MAPPINGS_MAX];
    struct pager_stats stats; /* under the lock of the store */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

unsigned pager_bucket(uint64_t ns)
{
    if (ns < 4)
        return (unsigned)ns;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    unsigned bucket = 4 * (power - 1) + (unsigned)(ns >> (power - 2) & 3);
    return bucket < PAGER_BUCKETS ? bucket : PAGER_BUCKETS - 1;
}

static uint64_t address_of(const struct sp_pager *pager, uint64_t page)
{
    for (size_t i = 0; i < pager->mapping_count; i++) {
        const struct pager_mapping *mapping = &pager->mappings[i];
        if (page >= mapping->first_page && page - mapping->first_page < mapping->bytes / SP_PAGE_BYTES)
            return mapping->address + (page - mapping->first_page) * SP_PAGE_BYTES;
    }
    return 0;
}

static uint64_t page_of(const struct sp_pager *pager, uint64_t address)
{
    for (size_t i = 0; i < pager->mapping_count; i++) {
        const struct pager_mapping *mapping = &pager->mappings[i];
        if (address >= mapping->address && address - mapping->address < mapping->bytes)
            return mapping->first_page + (address - mapping->address) / SP_PAGE_BYTES;
    }
    return UINT64_MAX;
}

/* 0, or an errno. A change of the address space that is under way (EAGAIN) passes. */
static int copy_in(const struct sp_pager *pager, uint64_t address, const uint8_t *content, bool write)
{
    for (;;) {
        struct uffdio_copy copy = {
            .dst = address,
            .src = (uintptr_t)content,
            .len = SP_PAGE_BYTES,
            /* Armed for the tracker of written pages, unless it is written now. */
            .mode = write ? 0 : UFFDIO_COPY_MODE_WP,
        };
        if (ioctl(pager->uffd, UFFDIO_COPY, &copy) == 0)
            return 0;
        if (errno != EAGAIN)
            return errno;
    }
}

static int zero_in(const struct sp_pager *pager, uint64_t address)
{
    for (;;) {
        struct uffdio_zeropage zero = {.range = {.start = address, .len = SP_PAGE_BYTES}};
        if (ioctl(pager->uffd, UFFDIO_ZEROPAGE, &zero) == 0)
            return 0;
        if (errno != EAGAIN)
            return errno;
    }
}

static void wake(const struct sp_pager *pager, uint64_t address, uint64_t bytes)
{
    struct uffdio_range range = {.start = address, .len = bytes};
    (void)ioctl(pager->uffd, UFFDIO_WAKE, &range);
}

int pager_place(struct sp_pager *pager, uint64_t page, const uint8_t *content)
{
    uint64_t address = address_of(pager, page);
    return address ? copy_in(pager, address, content, false) : EFAULT;
}

static void note_served(struct pager_stats *stats, unsigned kind, uint64_t ns, uint64_t rebuild_ns)
{
    stats->served[kind]++;
    stats->times[kind][pager_bucket(ns)]++;
    stats->rebuild_times[kind][pager_bucket(rebuild_ns)]++;
    stats->last_ns = ns;
    stats->last_rebuild_ns = rebuild_ns;
}

/*
 * Answers one fault under the lock: a page must not be evicted between the look at its slot and the answer. EAGAIN: it needs
 * what the swap file holds, and `ahead` is not that.
 */
static int serve(struct sp_pager *pager, uint64_t address, bool write, uint64_t began_ns, struct swap_copy *ahead)
{
    uint8_t content[SP_PAGE_BYTES] __attribute__((aligned(64)));
    struct sp_store *store = pager->store;
    uint64_t page = page_of(pager, address);
    int error;
    store_lock_for(store, true);
    struct guest *guest = &store->guests[pager->guest];
    uint64_t slot = page < guest->pages ? guest->slots[page] : 0;
    if (slot == 0) {
        error = zero_in(pager, address);
        if (error == EEXIST) { /* somebody else's fault brought it: let this one look again */
            error = 0;
            wake(pager, address, SP_PAGE_BYTES);
        } else if (!error)
            pager->stats.zeros++;
    } else {
        unsigned kind = store_kind(store, slot) - PAGE_FILLED;
        uint64_t locked_ns = now_ns();
        error = store_rebuild(store, slot, ahead, content);
        uint64_t rebuild_ns = now_ns() - locked_ns;
        error = error ? error : copy_in(pager, address, content, write);
        if (error == EEXIST) { /* it was being moved when our predecessor died: the RAM file wins (store.h) */
            store_release(store, guest, page);
            wake(pager, address, SP_PAGE_BYTES);
            error = 0;
        } else if (!error) {
            store_release(store, guest, page);
            note_served(&pager->stats, kind, now_ns() - began_ns, rebuild_ns);
        }
    }
    if (error != EAGAIN) {
        pager->stats.error = error;
        pager->stats.retries += error != 0;
    }
    store_unlock(store);
    return error;
}

static bool is_gone(int error)
{
    return error == ESRCH || error == ENOENT;
}

/* Faults of one page are one. False when there are too many, of which no QEMU has the threads. */
static bool enter_late(struct sp_pager *pager, const struct late *late)
{
    pthread_mutex_lock(&pager->late_lock);
    size_t at = 0;
    while (at < pager->late_count && pager->late[at].address != late->address)
        at++;
    bool room = at < LATE_MAX;
    if (room && at == pager->late_count) {
        pager->late[pager->late_count++] = *late;
        pthread_cond_signal(&pager->late_changed);
    }
    pthread_mutex_unlock(&pager->late_lock);
    return room;
}

/* It keeps waiting; woken after a while it faults again, and is tried again. Nobody else waits for that. */
static void try_later(struct sp_pager *pager, const struct late *failed)
{
    struct late late = *failed;
    late.due_ns = now_ns() + RETRY_NS;
    if (enter_late(pager, &late))
        return;
    struct timespec pause = {0, RETRY_NS};
    nanosleep(&pause, NULL);
    wake(pager, late.address, SP_PAGE_BYTES);
}

static void answer(struct sp_pager *pager, const struct uffd_msg *message, uint64_t began_ns)
{
    if (message->event != UFFD_EVENT_PAGEFAULT)
        return;
    struct late late = {.address = message->arg.pagefault.address & ~(uint64_t)(SP_PAGE_BYTES - 1),
                        .began_ns = began_ns,
                        .write = message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE};
    struct swap_copy nothing;
    swap_copy_begin(&nothing);
    int error = serve(pager, late.address, late.write, began_ns, &nothing);
    if (!error || is_gone(error))
        return;
    if (error != EAGAIN || !enter_late(pager, &late))
        try_later(pager, &late);
}

static void answer_late(struct sp_pager *pager, const struct late *late)
{
    struct swap_copy ahead;
    int error;
    swap_copy_begin(&ahead);
    do {
        swap_read_ahead(pager->store, pager->guest, page_of(pager, late->address), true, &ahead);
        error = serve(pager, late->address, late->write, late->began_ns, &ahead);
    } while (error == EAGAIN);
    if (error && !is_gone(error))
        try_later(pager, late);
}

/* The one that is due first; waits for it. False when the thread is to end. */
static bool next_late(struct sp_pager *pager, struct late *late)
{
    pthread_mutex_lock(&pager->late_lock);
    bool found = false;
    while (!found && !pager->late_over) {
        size_t first = 0;
        for (size_t i = 1; i < pager->late_count; i++)
            if (pager->late[i].due_ns < pager->late[first].due_ns)
                first = i;
        uint64_t due_ns = pager->late_count ? pager->late[first].due_ns : UINT64_MAX;
        if (due_ns == UINT64_MAX) {
            pthread_cond_wait(&pager->late_changed, &pager->late_lock);
        } else if (due_ns > now_ns()) {
            struct timespec due = {(time_t)(due_ns / 1000000000u), (long)(due_ns % 1000000000u)};
            pthread_cond_timedwait(&pager->late_changed, &pager->late_lock, &due);
        } else {
            *late = pager->late[first];
            pager->late[first] = pager->late[--pager->late_count];
            found = true;
        }
    }
    pthread_mutex_unlock(&pager->late_lock);
    return found;
}

static void *run_late(void *data)
{
    struct sp_pager *pager = data;
    struct late late;
    while (next_late(pager, &late)) {
        if (late.due_ns)
            wake(pager, late.address, SP_PAGE_BYTES);
        else
            answer_late(pager, &late);
    }
    return NULL;
}

static int start_late(struct sp_pager *pager)
{
    pthread_condattr_t attributes;
    int error = pthread_mutex_init(&pager->late_lock, NULL);
    if (error || (error = pthread_condattr_init(&attributes)))
        return error;
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    error = pthread_cond_init(&pager->late_changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return error ? error : pthread_create(&pager->late_thread, NULL, run_late, pager);
}

static void end_late(struct sp_pager *pager)
{
    pthread_mutex_lock(&pager->late_lock);
    pager->late_over = true;
    pthread_cond_signal(&pager->late_changed);
    pthread_mutex_unlock(&pager->late_lock);
    pthread_join(pager->late_thread, NULL);
    pthread_cond_destroy(&pager->late_changed);
    pthread_mutex_destroy(&pager->late_lock);
}

static void *run(void *data)
{
    struct sp_pager *pager = data;
    struct uffd_msg messages[MESSAGES];
    for (;;) {
        struct pollfd wait[3] = {{.fd = pager->uffd, .events = POLLIN},
                                 {.fd = pager->stop, .events = POLLIN},
                                 {.fd = pager->pidfd, .events = POLLIN}};
        if (poll(wait, 3, -1) < 0 && errno != EINTR)
            break;
        if (wait[1].revents)
            return NULL;
        if (wait[2].revents || wait[0].revents & (POLLERR | POLLHUP | POLLNVAL))
            break;
        ssize_t got = read(pager->uffd, messages, sizeof messages);
        uint64_t began_ns = now_ns();
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            break;
        for (ssize_t i = 0; i < got / (ssize_t)sizeof *messages; i++) {
            answer(pager, &messages[i], began_ns);
            began_ns = now_ns();
        }
    }
    store_lock(pager->store);
    pager->stats.ended = true;
    store_unlock(pager->store);
    return NULL;
}

static int register_mapping(const struct sp_pager *pager, const struct pager_mapping *mapping, uint64_t mode)
{
    struct uffdio_register range = {.range = {mapping->address, mapping->bytes}, .mode = mode};
    return ioctl(pager->uffd, UFFDIO_REGISTER, &range) < 0 ? errno : 0;
}

static int start(struct sp_pager *pager)
{
    int error = 0;
    for (size_t i = 0; i < pager->mapping_count && !error; i++)
        error = register_mapping(pager, &pager->mappings[i], UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING);
    if (error || (error = start_late(pager)))
        return error;
    error = pthread_create(&pager->thread, NULL, run, pager);
    if (error)
        end_late(pager);
    /* Who asked a former handler that did not answer asks again. */
    for (size_t i = 0; i < pager->mapping_count && !error; i++)
        wake(pager, pager->mappings[i].address, pager->mappings[i].bytes);
    return error;
}

static void pager_free(struct sp_pager *pager)
{
    if (pager->stop >= 0)
        close(pager->stop);
    if (pager->pidfd >= 0)
        close(pager->pidfd);
    close(pager->uffd);
    free(pager);
}

struct sp_pager *pager_start(struct sp_store *store, int number, int uffd, int pidfd,
                             const struct pager_mapping *mappings, size_t mapping_count)
{
    struct sp_pager *pager = calloc(1, sizeof *pager);
    int error = !pager ? ENOMEM : mapping_count == 0 || mapping_count > PAGER_MAPPINGS_MAX ? EINVAL : 0;
    if (error) {
        free(pager);
        close(uffd);
        errno = error;
        return NULL;
    }
    pager->store = store;
    pager->guest = number;
    pager->uffd = uffd;
    pager->mapping_count = mapping_count;
    memcpy(pager->mappings, mappings, mapping_count * sizeof *mappings);
    pager->stop = eventfd(0, EFD_CLOEXEC);
    pager->pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
    store_lock(store);
    struct guest *guest = store_guest(store, number);
    error = pager->stop < 0 || pager->pidfd < 0 ? errno : !guest ? EINVAL : guest->pager ? EEXIST : 0;
    if (!error)
        guest->pager = pager;
    store_unlock(store);
    if (!error && (error = start(pager))) {
        store_lock(store);
        guest->pager = NULL;
        store_unlock(store);
    }
    if (!error)
        return pager;
    pager_free(pager);
    errno = error;
    return NULL;
}

static bool all_back(struct sp_pager *pager)
{
    const struct guest *guest = &pager->store->guests[pager->guest];
    for (uint64_t page = 0; page < guest->pages; page++)
        if (guest->slots[page])
            return false;
    return true;
}

int pager_stop(struct sp_pager *pager, bool serving)
{
    store_lock(pager->store);
    bool back = serving || pager->stats.ended || all_back(pager);
    if (back)
        pager->store->guests[pager->guest].pager = NULL;
    store_unlock(pager->store);
    if (!back)
        return EBUSY;
    uint64_t one = 1;
    (void)!write(pager->stop, &one, sizeof one);
    pthread_join(pager->thread, NULL);
    end_late(pager);
    for (size_t i = 0; !serving && i < pager->mapping_count; i++) {
        struct uffdio_range range = {pager->mappings[i].address, pager->mappings[i].bytes};
        (void)ioctl(pager->uffd, UFFDIO_UNREGISTER, &range);
        register_mapping(pager, &pager->mappings[i], UFFDIO_REGISTER_MODE_WP);
    }
    pager_free(pager);
    return 0;
}

void pager_read(struct sp_pager *pager, struct pager_stats *stats)
{
    store_lock(pager->store);
    *stats = pager->stats;
    store_unlock(pager->store);
}
