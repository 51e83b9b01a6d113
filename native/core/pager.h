/*
 * Brings evicted pages back when a guest touches them: a thread of this process that serves the userfaultfd of the guest's
 * QEMU (made by the shim, fetched with pidfd_getfd) in MISSING mode. Never the event loop: that may itself wait for an
 * answer of the very QEMU that waits for a page.
 *
 * A page that is in the store comes from there; any other hole is a page of zeros, as without us. Each is put in place
 * and its slot emptied under one lock of the store. What cannot be brought back (swap unreadable, memory full) keeps waiting
 * whoever touched it, and is tried again: a wrong page is never given. A second thread answers what needs the disk and tries
 * again what has failed, so that neither delays other pages of the guest.
 *
 * The descriptor stays open in QEMU. When this process ends, faults wait for the next one that serves them: its
 * pager_start has everybody who waits ask again. Source: Linux Documentation/admin-guide/mm/userfaultfd.rst.
 */
#ifndef SUBPAGE_PAGER_H
#define SUBPAGE_PAGER_H

#include "store.h"

/* Where QEMU has mapped a piece of the RAM file, all in whole pages. */
struct pager_mapping {
    uint64_t address, bytes, first_page;
};

enum { PAGER_MAPPINGS_MAX = 80, PAGER_KINDS = 5, PAGER_BUCKETS = 128 };

/* Kinds as the accounts have them: filled, whole, packed, patched, swapped. */
struct pager_stats {
    uint64_t served[PAGER_KINDS];
    uint64_t zeros;   /* holes that were never filled */
    uint64_t retries; /* could not be brought back at once */
    int error;        /* why the latest could not; 0 when it could */
    bool ended; /* the process is gone */
    /* Times by pager_bucket: from reading the fault to its answer, and of rebuilding the page within. */
    uint64_t times[PAGER_KINDS][PAGER_BUCKETS], rebuild_times[PAGER_KINDS][PAGER_BUCKETS];
    uint64_t last_ns, last_rebuild_ns; /* of the latest page that came out of the store */
};

/* Quarters of powers of two of nanoseconds. */
unsigned pager_bucket(uint64_t ns);

struct sp_pager;

/*
 * Takes the userfaultfd over, also when it fails (NULL with errno). No page may be evicted before; those that are come
 * back. `pidfd` names the process whose faults they are, so that its end is noticed; it is duplicated.
 */
struct sp_pager *pager_start(struct sp_store *store, int guest, int uffd, int pidfd,
                             const struct pager_mapping *mappings, size_t mapping_count);

/*
 * Ends the thread. With `serving` faults wait for another pager; without, QEMU goes on alone, for which every page must be
 * back (EBUSY otherwise, and nothing changes). Marks of written pages are lost then: all count as written.
 */
int pager_stop(struct sp_pager *pager, bool serving);

void pager_read(struct sp_pager *pager, struct pager_stats *stats);

/* How a page is held: as pager_stats counts it, packed pages by packing. */
enum access_kind { ACCESS_FILLED, ACCESS_WHOLE, ACCESS_PATCHED, ACCESS_WORDS, ACCESS_LZ4, ACCESS_ZSTD, ACCESS_SWAPPED };

struct access_time {
    unsigned kind;                       /* enum access_kind */
    uint64_t access_ns, answer_ns, rebuild_ns; /* each is part of the one before; the last two are those of pager_stats */
};

/*
 * What an access to a stored page takes, as the thread that makes it sees it: maps the RAM file into this process, serves
 * it, and reads the pages in the order given, each once. `count` becomes how many of them were in the store. The pages
 * that were read are back in the RAM file then. Returns 0 or an errno.
 */
int pager_time_accesses(struct sp_store *store, int guest, int ram_fd, const uint32_t *pages, size_t *count,
                        struct access_time *times);

#endif
