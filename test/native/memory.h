/* Memories for tests: filled at random from a seed, and buffers that end at a page which must not be touched. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "../../native/core/core.h"
#include "check.h"

static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Writes as guests make them: single bytes, words, lines, stretches, cleared pages. */
static inline void scribble(uint8_t *memory, size_t bytes, unsigned writes, uint64_t *random)
{
    static const size_t lengths[] = {1, 1, 2, 8, 8, 8, 64, 64, 700, 4096};
    for (unsigned i = 0; i < writes; i++) {
        size_t length = lengths[next_random(random) % (sizeof lengths / sizeof *lengths)];
        size_t at = next_random(random) % (bytes - length);
        if (length >= 64 && next_random(random) % 2)
            at -= at % length;
        bool clear = next_random(random) % 4 == 0;
        for (size_t j = 0; j < length; j++)
            memory[at + j] = clear ? 0 : (uint8_t)next_random(random);
    }
}

/* `bytes` that end exactly at a page that faults: reading or writing one byte further ends the test. */
static inline uint8_t *guarded(size_t bytes)
{
    size_t rounded = (bytes + SP_PAGE_BYTES - 1) / SP_PAGE_BYTES * SP_PAGE_BYTES;
    uint8_t *map = mmap(NULL, rounded + SP_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED);
    CHECK(mprotect(map + rounded, SP_PAGE_BYTES, PROT_NONE) == 0);
    return map + rounded - bytes;
}

static inline void free_guarded(uint8_t *memory, size_t bytes)
{
    size_t rounded = (bytes + SP_PAGE_BYTES - 1) / SP_PAGE_BYTES * SP_PAGE_BYTES;
    munmap(memory + bytes - rounded, rounded + SP_PAGE_BYTES);
}

#endif
