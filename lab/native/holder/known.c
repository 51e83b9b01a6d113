/*
 * Which numbered pages have held something of the target's own. The kernel does not tell a page that was given back from one
 * that was never touched: both are holes. The former has changed, the latter has not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "holder.h"

void known_init(struct known *known, uint64_t page_count)
{
    known->page_count = page_count;
    known->words = calloc(page_count / 64 + 1, sizeof *known->words);
    if (!known->words) {
        fputs("subpage holder: out of memory\n", stderr);
        _exit(1);
    }
}

bool known_has(const struct known *known, uint64_t page)
{
    SP_INVARIANT(page < known->page_count);
    return known->words[page / 64] >> page % 64 & 1;
}

/* The bits of a word from page `page` on, those from `end` on left out. */
static uint64_t bits_between(uint64_t page, uint64_t end)
{
    uint64_t bits = UINT64_MAX << page % 64;
    return end / 64 == page / 64 ? bits & ~(UINT64_MAX << end % 64) : bits;
}

void known_set(struct known *known, uint64_t page, uint64_t count, bool value)
{
    SP_INVARIANT(page <= known->page_count && count <= known->page_count - page);
    uint64_t end = page + count;
    for (; page < end; page = (page / 64 + 1) * 64) {
        uint64_t bits = bits_between(page, end);
        if (value)
            known->words[page / 64] |= bits;
        else
            known->words[page / 64] &= ~bits;
    }
}

uint64_t known_next(const struct known *known, uint64_t page, uint64_t end, bool value)
{
    SP_INVARIANT(end <= known->page_count);
    for (; page < end; page = (page / 64 + 1) * 64) {
        uint64_t word = known->words[page / 64];
        uint64_t bits = (value ? word : ~word) & bits_between(page, end);
        if (bits != 0)
            return page / 64 * 64 + (uint64_t)__builtin_ctzll(bits);
    }
    return end;
}
