/*
 * Forgetting accesses: the agent asks, a thread of the shim inside QEMU does it. Shared by both, so that the layout and
 * the rules exist once.
 *
 * To forget a range of guest RAM is madvise(MADV_DONTNEED) on its shared mapping: the kernel drops the page-table entries
 * and never the data. A page that has an entry again later was accessed since (PAGEMAP_SCAN, PAGE_IS_PRESENT). The call
 * works on the caller's own address space only, so it has to be made inside QEMU.
 *
 * The file is mapped shared by both sides:
 *   1. the agent writes `runs` and `run_count`, then adds one to `requested` and wakes it
 *   2. the thread waits on `requested`; it forgets the runs, writes what it took, sets `done` to the number that it saw
 *   3. the agent sees `done` equal to its own number; until then it posts nothing
 *
 * Why nothing can go wrong:
 * - Idle, the thread sleeps in futex(2): no wake-ups, no cost.
 * - An agent that dies at any point leaves at most one request behind, which is carried out. Forgetting harms nobody: the
 *   guest pays a minor fault for each page that it uses again.
 * - Two agents at once, or a damaged file: runs may be garbled. They are copied before they are looked at, clipped to the
 *   mappings of guest RAM, and forgotten at a wrong moment at worst.
 * - It does not take from the tracker of written pages (uffd.h). An armed page leaves a marker in place of its entry, so it
 *   stays armed; a page that was written and not yet harvested leaves an empty entry, which a harvest reports as written.
 *   The latter holds while the page table itself stays: newer kernels free one that a call has emptied, when the call
 *   covers all of it (2 MiB), so no call here does. `forgetProbe` of the addon tries both on this kernel, and
 *   nobody forgets where it fails.
 */
#ifndef SUBPAGE_FORGET_H
#define SUBPAGE_FORGET_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FORGET_FILE_BYTES (64 * 1024)
#define FORGET_RUN_COUNT_MAX 8000
/* A quarter of what one page table maps. */
#define FORGET_PIECE_BYTES (512u * 1024)

/* Pages of the RAM file. */
struct forget_run {
    uint32_t first, count;
};

struct forget {
    _Atomic uint32_t requested;
    _Atomic uint32_t done;
    uint32_t run_count;
    /* Of the first piece that could not be forgotten; 0 when all could. */
    int32_t error;
    /* Processor time that the request took, and pages that it covered. */
    uint64_t ns, pages;
    struct forget_run runs[FORGET_RUN_COUNT_MAX];
};
_Static_assert(sizeof(struct forget) <= FORGET_FILE_BYTES, "the file holds the whole request");
_Static_assert(offsetof(struct forget, runs) == 32, "the layout is read by two programs");

/* Not private: the two sides are different processes. */
static inline void forget_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static inline void forget_wait(_Atomic uint32_t *word, uint32_t while_equal)
{
    syscall(SYS_futex, word, FUTEX_WAIT, while_equal, NULL, NULL, 0);
}

#endif
