/*
 * The pause lease: a paused guest never depends on the agent being alive.
 *
 * Shared by the shim (the guard, inside QEMU) and the addon (the agent), so that states and layout exist once.
 * The lease file is one page that both map shared. Its first word is the state:
 *
 *   LEASE_FREE      nobody holds a pause
 *   a deadline      the agent holds a pause until then (CLOCK_MONOTONIC, ns)
 *   LEASE_LOCKED    whoever has the lock of the lease file (flock(2)) holds the pause, however long it takes
 *   LEASE_EXPIRED   the guard found the deadline passed, or the lock free, and is resuming the guest
 *
 * and its second word counts the pauses that the guard has ended. (The third and fourth are the fence's: fence.h.) Every change is one compare-and-swap:
 *
 *   who    from -> to                  when
 *   agent  FREE -> deadline            before it sends `stop`                                 (lease_take)
 *   agent  deadline -> new deadline    all is captured, before it sends `cont`                (lease_renew)
 *   agent  deadline -> FREE            QEMU has answered `cont`                               (lease_clear)
 *   keeper deadline -> LOCKED          it has the lock, before it moves pages                 (lease_enter)
 *   keeper LOCKED -> new deadline      all is moved, before it gives the lock back            (lease_leave)
 *   guard  LOCKED -> EXPIRED           it got the lock itself                                 (lease_orphaned)
 *   guard  overdue deadline -> EXPIRED before it connects to QEMU                             (lease_expire)
 *   guard  EXPIRED -> FREE             QEMU has answered the guard's `cont`                   (lease_finish)
 *
 * Why this holds:
 * - Agent dies or hangs anywhere between take and clear: the word stays a deadline, the guard resumes the guest. That
 *   covers the moment between the last captured byte and `cont`, which is why a release renews and does not clear.
 * - Guard took over while the agent captured: renew fails, so the agent knows that the memory may be torn and throws
 *   the checkpoint away (and still sends `cont`, which does no harm to a running guest).
 * - A late `cont` of the guard cannot meet a fresh pause: no pause begins unless the word is FREE, and only the guard
 *   leaves EXPIRED, after QEMU has answered, so no `cont` of its own is under way then.
 * - Agent restarted: it finds FREE; or a deadline of its predecessor, which it adopts by renew (then `cont`, clear) or
 *   leaves to the guard; or EXPIRED, and waits. Deadlines differ between agents, so no CAS mistakes one for another.
 * - A deadline further away than LEASE_HOLD_NS_MAX was not written by a sane agent: overdue.
 * - Who moves pages out of guest RAM would lose what the guest writes meanwhile, so a deadline is not enough for it: it
 *   could be stopped for longer, between reading a page and removing it. The kernel gives a lock back when its holder
 *   has died, and never before: then nobody moves pages any more, and the guard resumes the guest.
 * Beside the pauses there are the mirrors of disks: QEMU waits for the endpoint in the supervisor at every write. The fifth word
 * is until when that is alive (CLOCK_MONOTONIC, ns; 0: there is no mirror), renewed by a thread of the supervisor (lease_mirrors).
 * Has it passed, the guard cuts the connections of the nodes that are named from LEASE_MIRRORS on, one NUL-terminated name
 * after the other: QEMU drops those mirrors, and the guest's writes go on. That comes before an overdue pause, because a `stop`
 * may wait for such a write.
 *
 * What it does not cover: an agent stopped between take and sending `stop` for longer than the lease, that then sends
 * `stop` and is killed before its `cont`. A restarted agent finds that guest paused and resumes it.
 */
#ifndef SUBPAGE_LEASE_H
#define SUBPAGE_LEASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define LEASE_FILE_BYTES 4096
#define LEASE_FREE UINT64_C(0)
#define LEASE_EXPIRED UINT64_MAX
#define LEASE_LOCKED (UINT64_MAX - 1)
#define LEASE_HOLD_NS_MAX (UINT64_C(60) * 1000 * 1000 * 1000)

/* Where the names of the nodes begin in the file, and how long a mirror may be without a sign of life: less than any pause. */
#define LEASE_MIRRORS 1024
#define LEASE_MIRRORS_NS (UINT64_C(1000) * 1000 * 1000)

/* What `speak_until` holds beside a deadline; fence.h says what it means. */
#define SPEAK_FREELY UINT64_C(0)
#define SPEAK_NEVER UINT64_C(1)

struct lease {
    _Atomic uint64_t word;
    _Atomic uint64_t expiries;
    _Atomic uint64_t speak_until;
    _Atomic uint64_t silenced;
    _Atomic uint64_t mirrors_until;
    _Atomic uint64_t mirrors_cut; /* times that the guard has done so */
    _Atomic uint64_t flushed_ns; /* that QEMU's flushes of disks have taken within pauses (flush.c) */
};
_Static_assert(sizeof(struct lease) == 56, "the lease is read by two programs");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a word shared by two processes must not need a lock");

static inline uint64_t lease_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Goes on while the machine sleeps: what ran out meanwhile has run out. */
static inline uint64_t speak_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline bool lease_cas(struct lease *lease, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong(&lease->word, &from, to);
}

/* A held pause, as opposed to the states that are no deadline. */
static inline bool lease_is_deadline(uint64_t word)
{
    return word != LEASE_FREE && word != LEASE_EXPIRED && word != LEASE_LOCKED;
}

/* Returns the deadline, or 0 when the lease is not free. */
static inline uint64_t lease_take(struct lease *lease, uint64_t hold_ns)
{
    uint64_t deadline = lease_now_ns() + hold_ns;
    return lease_cas(lease, LEASE_FREE, deadline) ? deadline : 0;
}

/* Returns the new deadline, or 0 when the lease is not `held` any more. */
static inline uint64_t lease_renew(struct lease *lease, uint64_t held, uint64_t hold_ns)
{
    uint64_t deadline = lease_now_ns() + hold_ns;
    return lease_is_deadline(held) && lease_cas(lease, held, deadline) ? deadline : 0;
}

static inline bool lease_clear(struct lease *lease, uint64_t held)
{
    return lease_is_deadline(held) && lease_cas(lease, held, LEASE_FREE);
}

/* The caller has the lock of the file. False when the lease is not `held` any more. */
static inline bool lease_enter(struct lease *lease, uint64_t held)
{
    return lease_is_deadline(held) && lease_cas(lease, held, LEASE_LOCKED);
}

/* Before the lock is given back. Returns the new deadline. */
static inline uint64_t lease_leave(struct lease *lease, uint64_t hold_ns)
{
    uint64_t deadline = lease_now_ns() + hold_ns;
    return lease_cas(lease, LEASE_LOCKED, deadline) ? deadline : 0;
}

/* The caller has got the lock of the file, so whoever entered is gone. True when the pause is now the guard's to end. */
static inline bool lease_orphaned(struct lease *lease)
{
    return lease_cas(lease, LEASE_LOCKED, LEASE_EXPIRED);
}

/* True when a deadline was overdue and is now the guard's to act on. */
static inline bool lease_expire(struct lease *lease, uint64_t now_ns)
{
    uint64_t word = atomic_load(&lease->word);
    if (!lease_is_deadline(word))
        return false;
    if (word > now_ns && word - now_ns <= LEASE_HOLD_NS_MAX)
        return false;
    return lease_cas(lease, word, LEASE_EXPIRED);
}

/* True when the mirrors are now the guard's to cut. */
static inline bool lease_mirrors_expire(struct lease *lease, uint64_t now_ns)
{
    uint64_t until = atomic_load(&lease->mirrors_until);
    /* It may have been renewed after `now_ns` was read; further away was not written by a sane supervisor. */
    if (until == 0 || (until > now_ns && until - now_ns <= 2 * LEASE_MIRRORS_NS))
        return false;
    if (!atomic_compare_exchange_strong(&lease->mirrors_until, &until, 0))
        return false;
    atomic_fetch_add(&lease->mirrors_cut, 1);
    return true;
}

static inline void lease_finish(struct lease *lease)
{
    atomic_fetch_add(&lease->expiries, 1);
    lease_cas(lease, LEASE_EXPIRED, LEASE_FREE);
}

#endif
