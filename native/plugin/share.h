/*
 * What the plugin inside QEMU notes of the guest's accesses, in one file that whoever reads it maps too. The other
 * declaration of this layout is lab/src/plugin/layout.ts; lab/test/plugin/layout.test.ts holds that both agree.
 *
 *   header                one page
 *   vCPUs                 VCPU_COUNT_MAX x struct share_vcpu
 *   the parts, each from a page boundary; a part that was not asked for has offset 0:
 *   lines                 one word a page: bit l is set when line l was stored to
 *   dirty                 one bit a page: the dirty bit of the PML model
 *   counts                16 bits a page: how often the PRL model has logged it, up to COUNT_MAX
 *   read, stored          one bit a page each: the exact record of accesses
 *
 * The plugin makes the file; a magic that is there says that the rest is. Marks are set by vCPU threads and taken away
 * by the reader, both with atomic operations on whole words, so none is lost and nobody waits, whether the guest runs or
 * not. A mark is set after its store: a page or line is never reported before its content is there.
 */
#ifndef SUBPAGE_PLUGIN_SHARE_H
#define SUBPAGE_PLUGIN_SHARE_H

#include <stdatomic.h>
#include <stdint.h>

#define SHARE_MAGIC UINT64_C(0x4e4947554c505053) /* "SPPLUGIN" */
#define SHARE_FORMAT 1
#define SHARE_HEADER_BYTES 4096
#define SHARE_VCPU_COUNT_MAX 256
#define SHARE_COUNT_MAX 0xff00

enum share_part { SHARE_LINES = 1, SHARE_PML = 2, SHARE_PRL = 4, SHARE_ACCESSES = 8 };

/* Sizes of logs that are followed at once: 128 << i entries. Intel's has 512. */
#define SHARE_LOG_SIZES 6
#define SHARE_LOG_ENTRIES_MIN 128u

/*
 * A log as a vCPU fills it, for every size: its index counts down, and an entry that finds none left is a log-full
 * event, which empties the log first. The entries themselves are not kept: they are the pages that are marked.
 */
struct share_log {
    _Atomic uint64_t logged;
    _Atomic uint64_t full[SHARE_LOG_SIZES];
    _Atomic uint32_t left[SHARE_LOG_SIZES];
};

struct share_vcpu {
    struct share_log pml;
    struct share_log prl;
    uint8_t reserved[96];
};

struct share_header {
    _Atomic uint64_t magic;
    uint32_t format;
    uint32_t parts;
    uint64_t pages;
    uint64_t bytes;
    uint64_t vcpus_offset;
    uint64_t lines_offset;
    uint64_t dirty_offset;
    uint64_t counts_offset;
    uint64_t read_offset;
    uint64_t stored_offset;
    /* Entries of the TLB that the PRL model has for each vCPU. */
    uint32_t tlb_entries;
    /* Counted up by the reader: every TLB of the model is empty then. */
    _Atomic uint32_t tlb_generation;
    /* 1: the reader wants accesses to be noted. 1: they can be, from some time after they were first wanted. */
    _Atomic uint32_t wanted;
    _Atomic uint32_t active;
    /* Accesses to memory that is not guest RAM: ROMs. */
    _Atomic uint64_t outside;
    /* Accesses whose address QEMU could not tell; not 0 means that marks are missing. */
    _Atomic uint64_t unknown;
};

_Static_assert(sizeof(struct share_log) == 80, "layout.ts has the same");
_Static_assert(sizeof(struct share_vcpu) == 256, "layout.ts has the same");
_Static_assert(sizeof(struct share_header) == 112, "layout.ts has the same");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a word shared by two processes must not need a lock");

#endif
