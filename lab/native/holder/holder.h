/*
 * The holder: a small program that watches one ordinary process for a recording. It holds the process at the end of an
 * epoch, asks the kernel which pages were written, copies them into memory that it shares with subpage, and lets the
 * process run again.
 *
 * It is a program of its own, and not a part of subpage's process, so that the target survives whatever happens to
 * subpage: when the control socket closes the holder lets go in order, and when the holder itself is killed the kernel
 * does (ptrace(2): tracees of a tracer that died are detached and go on; userfaultfd: memory is unregistered when the
 * last descriptor closes).
 *
 * Threads that run are held with PTRACE_INTERRUPT, not SIGSTOP: its parent does not see it stop, no stop signal mixes with the
 * target's own job control, and the stop ends with its tracer. Threads that sleep in the kernel where a
 * stop would be felt are left alone (threads.c). The only thing that runs inside the target are two system
 * calls per address space, userfaultfd(2) and close(2) (inject.c); everything else is done from here, through a copy of
 * the descriptor (pidfd_getfd(2)).
 *
 * The other side is src/record/process/holder.ts. Both are of one build: the protocol has no version.
 */
#ifndef SUBPAGE_HOLDER_H
#define SUBPAGE_HOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/invariant.h"

enum { PAGE_BYTES = 4096 };

/* ---- threads.c, seize.c: all threads of the target ---- */

enum thread_state {
    THREAD_RUNNING,
    THREAD_STOPPED,
    THREAD_LISTENING /* stopped by job control: what wakes it stops it for us first */
};

/* A call with a time limit that is made again: it is followed to its end, and ended when the time is over (interrupted.c). */
struct repeated {
    uint64_t deadline_ns; /* 0: none */
    long call;
    uint64_t stack; /* with the call: which one it is */
    long expired;   /* what it then returns */
};

enum thread_kind { KIND_UNKNOWN, KIND_PROGRAM, KIND_WORKER /* of the kernel: runs nothing of the program's */ };

struct thread {
    pid_t tid;
    enum thread_kind kind;
    enum thread_state state;
    bool asleep;     /* in the kernel when the others were held, and left there */
    bool told;       /* to stop; it does not go back to its program before it has */
    bool group_stop; /* stopped by job control; goes on listening, not running */
    bool can_call;   /* stopped where a system call can be put in */
    int signal;      /* to be delivered when it goes on */
    int syscall_fd;  /* asleep.c; -1 when not open */
    struct repeated repeated;
};

struct target {
    pid_t pid; /* the process; its first thread may have ended */
    struct thread *threads;
    size_t count, room;
    bool holding;    /* threads that stop stay stopped */
    bool ended;      /* all threads are gone */
    int exit_status; /* as waitpid(2) gives it, when `reaped` */
    bool reaped;     /* the status is known: the target is our child, or a thread told */
    bool executed;   /* another program runs now; held in its first moment, its memory is not prepared */
};

/* NULL when it is not known. */
struct thread *target_find(const struct target *target, pid_t tid);
struct thread *target_add(struct target *target, pid_t tid);
/* The last one takes its place. */
void target_forget(struct target *target, struct thread *thread);
/* Seizes every thread. Returns 0 or an errno. */
int target_seize(struct target *target, pid_t pid);
/* The same, when threads were gone, or changed their numbers, because one that was not seized has executed a program. */
int target_seize_again(struct target *target);
/* In the handler of SIGCHLD. */
void target_take_while_seizing(void);
/* The next event that was taken so. 0 when there is none. */
pid_t target_taken(int *status);
/* Handles what has happened to threads; never waits. */
void target_events(struct target *target);
/* Stops the threads, but for those that sleep where that would be felt, or do not come. False when not all stand in time, or the target ended. */
bool target_hold(struct target *target, int timeout_ms);
/* Stopped threads go on. */
void target_release(struct target *target);
/* A stopped thread that can run a system call; 0 when there is none. */
pid_t target_stopped_thread(struct target *target);
/*
 * The same. Threads that stand where no call can be put in go on to the next stop, of those that sleep the one is stopped that feels it
 * least, and what is slow is waited for: CALL_MS. Threads that stop stay stopped meanwhile.
 */
enum { CALL_MS = 2000 };
pid_t target_calling_thread(struct target *target);
/* A thread that has not ended, other than `former`: /proc/PID of a first thread that has ended knows no memory. 0 when there is none. */
pid_t target_living_thread(const struct target *target, pid_t former);
/* Whether all of its threads have ended, or do so now: one that was killed takes a moment. */
bool target_ends(struct target *target);
/* Threads that run or sleep are let go when this program ends: that disturbs none. */
void target_detach(struct target *target);
/* Ends repeated calls whose time is over. Returns in how many nanoseconds the next one is; UINT64_MAX: none. */
uint64_t target_expire(struct target *target);

/* Of ptrace(2), for every thread. */
enum { TRACE_OPTIONS = 0x01 /* SYSGOOD */ | 0x08 /* CLONE */ | 0x10 /* EXEC */ };

/* ---- asleep.c ---- */

/* In which system call; -1: in none, as for a page that is fetched. */
struct sleep {
    long call;
    unsigned long arguments[6];
};

bool thread_asleep(pid_t pid, struct thread *thread, struct sleep *sleep);
/* It goes on by itself in a moment, unless it waits for a device; it may then change mappings. */
bool sleeps_briefly(const struct sleep *sleep);
/* As ps(1) shows it; 0 when it is gone. */
char thread_state_letter(pid_t pid, pid_t tid);
/* It has, or is about to. */
bool thread_has_ended(pid_t pid, pid_t tid);
/* Whether it is one of the kernel's in the process, as io_uring has them: it never runs the program. */
bool thread_is_worker(pid_t pid, pid_t tid);

/* ---- interrupted.c ---- */

/* A stopped thread whose system call was cut short makes it again, unless a handler runs. */
void repeat_interrupted(struct target *target, struct thread *thread);
/* A call that is followed begins or ends: the thread stands there. */
void follow_repeated(struct thread *thread);
/* Whether the call may return EINTR when its thread is stopped. */
bool call_returns_eintr(const struct sleep *sleep);

/* ---- inject.c ---- */

/*
 * Has a stopped thread make one system call, and leaves its registers, signal mask and pending system call as they were.
 * Returns what the call returned (-errno), or INJECT_FAILED with errno when it could not be made.
 */
long inject_syscall(pid_t tid, uint64_t syscall_address, long number, const long arguments[3]);
#define INJECT_FAILED (-100000L)
/* Address of a system call instruction in the target's memory; 0 when none is found, or calls cannot be made in it. */
uint64_t find_syscall(pid_t pid);

/* ---- space.c: the target's memory as numbered pages ---- */

/* Part of the address space. Its pages have numbers that follow each other. */
struct piece {
    uint64_t start, end;
    uint64_t first_page;
    char name[64];
};

/* A mapping whose content is the target's own. */
struct mapping {
    uint64_t start, end;
    /* With its neighbours of private memory that nobody may access now; equal to the above where there are none. */
    uint64_t around_start, around_end;
    uint64_t offset; /* of its first byte in its file */
    uint64_t inode;
    bool is_private;
    bool of_file; /* of private memory: what was not written is a file's */
    char name[64];
};

struct space {
    struct piece *numbered; /* by their numbers; those of a former program too */
    size_t numbered_count, numbered_room;
    size_t former_count; /* how many of them are a former program's */
    uint32_t *order; /* by address: indices of `numbered`, with room for those to come at `gap` */
    size_t count, order_room, gap;
    uint64_t page_count, page_limit;
    struct mapping *mappings; /* of the present moment, by address */
    size_t mapping_count, mapping_room;
    struct piece *news; /* what has got numbers since subpage was last told */
    size_t news_count, news_room;
};

/* Reads the mappings of the process. Returns 0 or an errno. */
int space_read(struct space *space, pid_t pid);
/* Gives numbers to pages of a mapping that have none. False when the limit is reached. */
bool space_number(struct space *space, const struct mapping *mapping, uint64_t start, uint64_t end);
/* The pieces of the program that runs, by address. */
static inline struct piece *space_piece(const struct space *space, size_t at)
{
    SP_INVARIANT(at < space->count && space->gap <= space->count && space->count <= space->order_room);
    size_t index = at < space->gap ? at : at + (space->order_room - space->count);
    SP_INVARIANT(space->order[index] < space->numbered_count);
    return &space->numbered[space->order[index]];
}
/* The index of the first piece that ends behind an address. */
size_t space_position(const struct space *space, uint64_t address);
/* The piece that holds an address; NULL when it has no number. */
const struct piece *space_find(const struct space *space, uint64_t address);
/* The part of a mapping that gets numbers together with an address, unless some of it has them. */
struct block {
    uint64_t start, end;
};
struct block space_block(const struct space *space, const struct mapping *mapping, uint64_t address);
/* Another program runs: its memory has nothing to do with that of the former one. Numbers are not used again. */
void space_forget(struct space *space);

/* Its end has a number too: the one behind its last page. */
static inline uint64_t piece_page(const struct piece *piece, uint64_t address)
{
    SP_INVARIANT(piece->start <= address && address <= piece->end);
    return piece->first_page + (address - piece->start) / PAGE_BYTES;
}

/* ---- known.c: pages that have held something of the target's own, by number ---- */

struct known {
    uint64_t *words;
    uint64_t page_count;
};

void known_init(struct known *known, uint64_t page_count);
bool known_has(const struct known *known, uint64_t page);
void known_set(struct known *known, uint64_t page, uint64_t count, bool value);
/* The first page from `page` on that is known, or (`value` false) is not; `end` when there is none before it. */
uint64_t known_next(const struct known *known, uint64_t page, uint64_t end, bool value);

/* ---- harvest.c ---- */

struct run {
    uint32_t first, count;
};

enum find_kind {
    FIND_WRITTEN,
    FIND_UNSURE, /* written, or only read for the first time: then it holds zeros, as it did before */
    FIND_EMPTY,   /* known, and given back: it reads as zeros */
    FIND_OF_FILE, /* known, and given back: it reads as the file does */
    FIND_COMPARED /* there: it counts when it differs from the mirror */
};

struct find {
    uint32_t first, count;
    enum find_kind kind;
};

/* Why a mapping is compared, though the others are tracked: an errno, or one of these. */
enum { LEFT_HUGE = 10001, LEFT_OWN = 10002, LEFT_BUFFER = 10004 };
/* It is no longer as it was read: the next epoch sees what it has become. */
enum { LEFT_CHANGED = 10003 };

/* What is compared for one reason, in this epoch. */
struct left {
    int reason;
    uint64_t bytes, mappings;
    struct mapping first;
};

/* What became of a mapping: tracked (0), or why not. Then it is not tried again. */
struct verdict {
    uint64_t start, end, offset, inode;
    int reason;
};

enum { LEFT_REASONS = 16 };

struct watch {
    pid_t pid; /* of a living thread: its /proc/PID shows the memory */
    int pagemap, mem;
    int uffd; /* -1: pages are not tracked, all that are present count */
    uint8_t *mirror;
    struct space space;
    struct known known;
    struct find *finds; /* of this epoch */
    size_t find_count, find_room;
    struct run *runs; /* pages to report: by page, apart */
    size_t run_count, run_room;
    struct left left[LEFT_REASONS];
    size_t left_count;
    struct verdict *verdicts, *former; /* of this epoch and the last one, by address */
    size_t verdict_count, verdict_room, former_count, former_room;
    bool has_own_uffd; /* the target has a userfaultfd, and may register any of its memory */
    struct block *buffers; /* registered with io_uring, by address */
    size_t buffer_count, buffer_room;
    const char *failed; /* why pages are not tracked: the step, and its errno or 0 */
    int error;
};

/* Where the mirror holds pages; they have numbers. */
static inline uint8_t *mirror_of(const struct watch *watch, uint64_t page, uint64_t count)
{
    SP_INVARIANT(page < watch->space.page_count && count <= watch->space.page_count - page);
    SP_INVARIANT(watch->space.page_count <= watch->space.page_limit);
    return watch->mirror + page * PAGE_BYTES;
}

/* Prepares the address space of a held target for tracking, through a thread that is stopped. False with `failed` and `error`. */
bool watch_prepare(struct watch *watch, pid_t stopped_thread);
/* A descriptor of ours for one of the target's; -1 with errno. */
int copy_descriptor(pid_t tid, pid_t pid, int theirs);

/*
 * Finds the pages that were written since the last time, and arms them again. Returns 0, ENOSPC at the limit of pages, ESRCH when
 * the thread `pid` has no memory any more, or an errno.
 */
int find_written(struct watch *watch);
/* Whether the memory that was opened belongs to no process any more: it has ended, or executed another program. */
bool watch_is_gone(const struct watch *watch);
/* Copies what was found into the mirror. Also while the target runs: what it writes then is found the next time. Returns as above. */
int copy_written(struct watch *watch);

/* Appends to `finds`. False when the limit of pages is reached. */
bool note(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end, enum find_kind kind);
/* Notes the known pages of a range that holds nothing of the target's own any more; they are not known from then on. */
void note_given_back(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end);
/* Notes the known pages of a range of which it cannot be told whether they hold something. */
void note_unsure(struct watch *watch, const struct mapping *mapping, uint64_t start, uint64_t end);

/* ---- scan-private.c, scan-shared.c: what was written in a mapping. Return 0, ENOSPC at the limit of pages, or an errno ---- */

int scan_private(struct watch *watch, const struct mapping *mapping);
/* `file` is the mapping's, or -1. `fresh`: it has been registered just now. */
int scan_shared(struct watch *watch, const struct mapping *mapping, int file, bool fresh);

/* ---- track.c: which mappings are tracked ---- */

/* Before the mappings of an epoch, and after them. */
void track_begin(struct watch *watch);
void track_end(struct watch *watch);
/* Has the mapping tracked. Returns 0, or why it is not: an errno or LEFT_*. */
int track(struct watch *watch, const struct mapping *mapping, bool *fresh);
/* The mapping was tracked in this epoch. */
void track_keep(struct watch *watch, const struct mapping *mapping);
/* The mapping is compared from now on. */
void track_leave(struct watch *watch, const struct mapping *mapping, int reason);
struct message;
/* Says what has been left since subpage was last told, or became twice as much. */
void track_tell(const struct watch *watch, struct message *message);
/* Another program runs. */
void track_forget(struct watch *watch);

/* ---- descriptors.c ---- */

/* Finds what the target's descriptors say, now and then. */
void descriptors_look(struct watch *watch);
/* Another program runs. */
void descriptors_forget(struct watch *watch);
/* Whether part of the mapping is a buffer that is registered with io_uring. */
bool holds_buffer(const struct watch *watch, const struct mapping *mapping);

/* ---- compare.c: mappings that are not tracked ---- */

/* Finds every page that holds something. Returns as the scans do. */
int scan_untracked(struct watch *watch, const struct mapping *mapping);
/* The next range of shared memory that holds something; `file` is the mapping's, or -1. Returns 0, ENXIO when there is none, or an errno. */
int next_held(const struct watch *watch, const struct mapping *mapping, int file, uint64_t start, uint64_t end,
              struct block *held);
/* The same, where all of it is armed. */
int next_held_armed(const struct watch *watch, const struct mapping *mapping, int file, uint64_t start, uint64_t end,
                    struct block *held);
/* The file of a mapping; -1 when it may not be opened (that takes CAP_CHECKPOINT_RESTORE) or cannot say what it holds. */
int open_mapped_file(const struct watch *watch, const struct mapping *mapping);

/* ---- copy.c ---- */

/* Brings what was found into the mirror, and makes `runs` of the pages that count. `finds` is by page. */
int copy_finds(struct watch *watch);

/* ---- control.c: messages to and from subpage ---- */

enum { CONTROL_FD = 3 };

/* Messages begin with their length (without these four bytes) and kind; numbers are little endian. */
enum message_kind {
    MESSAGE_READY = 1,  /* pid, mirror descriptor, tracked, why not; how long the target was held, ns */
    MESSAGE_FAILED = 2, /* errno; then the step */
    MESSAGE_HELD = 3,   /* see reply_held */
    MESSAGE_BUSY = 4,   /* not all threads could be stopped */
    MESSAGE_ENDED = 5,  /* known, wait status */
};

struct message {
    uint8_t *bytes;
    size_t length, room;
};

void message_begin(struct message *message, enum message_kind kind);
void message_u64(struct message *message, uint64_t value);
void message_text(struct message *message, const char *text);
void message_bytes(struct message *message, const void *bytes, size_t length);
/* False when subpage is gone. */
bool message_send(struct message *message);

/* Grows an array so that one more element fits; the program ends when there is no memory. */
void *grown(void *array, size_t count, size_t *room, size_t element_bytes);
uint64_t now_ns(void);

#endif
