/* Notes one access in the parts that are shared. Knows nothing of QEMU; test/native/test_plugin.c runs it from threads. */
#ifndef SUBPAGE_PLUGIN_NOTE_H
#define SUBPAGE_PLUGIN_NOTE_H

#include <stdbool.h>
#include <stdint.h>

#include "plugin/share.h"

/* The TLB of the PRL model: as large as the second level of Intel's server cores, for pages of 4 KiB. */
#define TLB_SETS 256u
#define TLB_WAYS 6u

struct tlb {
    uint32_t generation;
    uint32_t latest;
    uint8_t victim[TLB_SETS];
    uint32_t page[TLB_SETS][TLB_WAYS]; /* page + 1; 0 is empty */
};

/* A mapped share; pointers of parts that are not there are NULL. */
struct share {
    struct share_header *header;
    struct share_vcpu *vcpus;
    _Atomic uint64_t *lines, *dirty, *read, *stored;
    _Atomic uint16_t *counts;
    struct tlb *tlbs; /* SHARE_VCPU_COUNT_MAX; this process's own */
};

/* Bytes of a share with these parts for that many pages of RAM; fills in the header's offsets when there is one. */
uint64_t share_layout(uint32_t parts, uint64_t pages, struct share_header *header);

/* Makes the file and maps it. False, with errno set. */
bool share_create(struct share *share, const char *path, uint32_t parts, uint64_t pages);

/* `bytes` from `offset` of the RAM, within one page. */
void share_note(struct share *share, unsigned vcpu, uint64_t offset, unsigned bytes, bool store);

#endif
