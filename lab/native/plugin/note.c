/* The models: lines, Page Modification Logging, Page Reference Logging, exact accesses (share.h, note.h). */
#define _GNU_SOURCE
#include "note.h"

#include "core/invariant.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + 4095) / 4096 * 4096;
}

uint64_t share_layout(uint32_t parts, uint64_t pages, struct share_header *header)
{
    struct share_header unused;
    struct share_header *to = header ? header : &unused;
    uint64_t bit_bytes = whole_pages((pages + 63) / 64 * 8);
    uint64_t at = SHARE_HEADER_BYTES;
    to->vcpus_offset = at;
    at += SHARE_VCPU_COUNT_MAX * sizeof(struct share_vcpu);
    to->lines_offset = parts & SHARE_LINES ? at : 0;
    at += parts & SHARE_LINES ? whole_pages(pages * 8) : 0;
    to->dirty_offset = parts & SHARE_PML ? at : 0;
    at += parts & SHARE_PML ? bit_bytes : 0;
    to->counts_offset = parts & SHARE_PRL ? at : 0;
    at += parts & SHARE_PRL ? whole_pages(pages * 2) : 0;
    to->read_offset = parts & SHARE_ACCESSES ? at : 0;
    at += parts & SHARE_ACCESSES ? bit_bytes : 0;
    to->stored_offset = parts & SHARE_ACCESSES ? at : 0;
    at += parts & SHARE_ACCESSES ? bit_bytes : 0;
    return at;
}

static void *part(struct share *share, uint64_t offset)
{
    return offset ? (uint8_t *)share->header + offset : NULL;
}

static void fill(struct share *share, uint32_t parts, uint64_t pages, uint64_t bytes)
{
    struct share_header *header = share->header;
    header->format = SHARE_FORMAT;
    header->parts = parts;
    header->pages = pages;
    header->bytes = bytes;
    header->tlb_entries = TLB_SETS * TLB_WAYS;
    atomic_store(&header->tlb_generation, 1);
    share_layout(parts, pages, header);
    share->vcpus = part(share, header->vcpus_offset);
    share->lines = part(share, header->lines_offset);
    share->dirty = part(share, header->dirty_offset);
    share->counts = part(share, header->counts_offset);
    share->read = part(share, header->read_offset);
    share->stored = part(share, header->stored_offset);
    SP_INVARIANT(share_layout(parts, pages, NULL) == bytes);
    for (unsigned vcpu = 0; vcpu < SHARE_VCPU_COUNT_MAX; vcpu++)
        for (unsigned size = 0; size < SHARE_LOG_SIZES; size++) {
            atomic_store(&share->vcpus[vcpu].pml.left[size], SHARE_LOG_ENTRIES_MIN << size);
            atomic_store(&share->vcpus[vcpu].prl.left[size], SHARE_LOG_ENTRIES_MIN << size);
        }
    atomic_store(&header->magic, SHARE_MAGIC);
}

bool share_create(struct share *share, const char *path, uint32_t parts, uint64_t pages)
{
    uint64_t bytes = share_layout(parts, pages, NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    void *mapped = MAP_FAILED;
    /* All space now: a full file system must not kill QEMU with SIGBUS later. */
    int error = posix_fallocate(fd, 0, (off_t)bytes);
    if (error == 0) {
        mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        error = errno;
    }
    close(fd);
    share->tlbs = calloc(SHARE_VCPU_COUNT_MAX, sizeof *share->tlbs);
    if (mapped == MAP_FAILED || !share->tlbs) {
        unlink(path);
        errno = error;
        return false;
    }
    share->header = mapped;
    fill(share, parts, pages, bytes);
    return true;
}

/* One entry more, in logs of all sizes. Only the vCPU's own thread and a reader that empties them write here. */
static void log_entry(struct share_log *log)
{
    atomic_fetch_add_explicit(&log->logged, 1, memory_order_relaxed);
    for (unsigned size = 0; size < SHARE_LOG_SIZES; size++) {
        uint32_t left = atomic_load_explicit(&log->left[size], memory_order_relaxed);
        if (left == 0) {
            atomic_fetch_add_explicit(&log->full[size], 1, memory_order_relaxed);
            left = SHARE_LOG_ENTRIES_MIN << size;
        }
        atomic_store_explicit(&log->left[size], left - 1, memory_order_relaxed);
    }
}

/* True when these bits were not all set before. The load first: most pages that are written were written before. */
static bool mark(_Atomic uint64_t *word, uint64_t bits)
{
    if ((atomic_load_explicit(word, memory_order_relaxed) & bits) == bits)
        return false;
    return (atomic_fetch_or(word, bits) & bits) != bits;
}

/* Whether the TLB lacks the page, which it has from now on: the page walk in which PRL logs. */
static bool tlb_miss(struct tlb *tlb, uint32_t generation, uint32_t page)
{
    if (tlb->generation != generation) {
        *tlb = (struct tlb){.generation = generation};
    }
    uint32_t key = page + 1;
    if (tlb->latest == key)
        return false;
    tlb->latest = key;
    uint32_t set = page % TLB_SETS;
    for (unsigned way = 0; way < TLB_WAYS; way++)
        if (tlb->page[set][way] == key)
            return false;
    tlb->page[set][tlb->victim[set]] = key;
    tlb->victim[set] = (uint8_t)((tlb->victim[set] + 1) % TLB_WAYS);
    return true;
}

static void prl_note(struct share *share, unsigned vcpu, uint64_t page)
{
    uint32_t generation = atomic_load_explicit(&share->header->tlb_generation, memory_order_relaxed);
    if (!tlb_miss(&share->tlbs[vcpu], generation, (uint32_t)page))
        return;
    /* Several vCPUs may pass the limit together: it lies 255 below the largest number. */
    if (atomic_load_explicit(&share->counts[page], memory_order_relaxed) < SHARE_COUNT_MAX)
        atomic_fetch_add(&share->counts[page], 1);
    log_entry(&share->vcpus[vcpu].prl);
}

void share_note(struct share *share, unsigned vcpu, uint64_t offset, unsigned bytes, bool store)
{
    uint64_t page = offset / 4096, bit = UINT64_C(1) << (page % 64);
    vcpu %= SHARE_VCPU_COUNT_MAX;
    SP_INVARIANT(page < share->header->pages && bytes > 0 && offset % 4096 + bytes <= 4096);
    /*
     * Before a mark that is set already may be left as it is, the store must be visible: a reader that takes the mark
     * away at this moment looks at the memory next.
     */
    atomic_thread_fence(memory_order_seq_cst);
    if (store) {
        if (share->lines) {
            unsigned first = offset % 4096 / 64, last = (unsigned)(offset % 4096 + bytes - 1) / 64;
            mark(&share->lines[page], (UINT64_MAX >> (63 - last)) & (UINT64_MAX << first));
        }
        if (share->dirty && mark(&share->dirty[page / 64], bit))
            log_entry(&share->vcpus[vcpu].pml);
        if (share->stored)
            mark(&share->stored[page / 64], bit);
    } else if (share->read)
        mark(&share->read[page / 64], bit);
    if (share->counts)
        prl_note(share, vcpu, page);
}
