/* Takes marks that others set (take.h). */
#include "take.h"

#include <string.h>

/* One more, joined to the last run when it follows it. Returns how many runs there are. */
static size_t append(struct sp_run *runs, size_t made, uint64_t first, uint32_t count)
{
    if (made > 0 && (uint64_t)runs[made - 1].first + runs[made - 1].count == first) {
        runs[made - 1].count += count;
        return made;
    }
    runs[made] = (struct sp_run){(uint32_t)first, count};
    return made + 1;
}

size_t sp_find_words(const _Atomic uint64_t *words, uint64_t count, uint64_t from, struct sp_run *runs, size_t room,
                     uint64_t *next)
{
    size_t made = 0;
    uint64_t at = from;
    for (; at < count && made < room; at++)
        if (atomic_load_explicit(&words[at], memory_order_relaxed) != 0)
            made = append(runs, made, at, 1);
    *next = at;
    return made;
}

bool sp_take_words(_Atomic uint64_t *words, uint64_t count, const struct sp_run *runs, size_t run_count, uint64_t *into)
{
    for (size_t run = 0; run < run_count; run++) {
        uint64_t end = (uint64_t)runs[run].first + runs[run].count;
        if (end > count)
            return false;
        for (uint64_t at = runs[run].first; at < end; at++)
            *into++ = atomic_load_explicit(&words[at], memory_order_relaxed) ? atomic_exchange(&words[at], 0) : 0;
    }
    return true;
}

size_t sp_take_bits(_Atomic uint64_t *words, uint64_t bits, uint64_t from, struct sp_run *runs, size_t room,
                    uint64_t *next)
{
    size_t made = 0;
    uint64_t at = from;
    for (; at < bits && made + SP_TAKE_RUNS_MIN <= room; at += 64) {
        if (atomic_load_explicit(&words[at / 64], memory_order_relaxed) == 0)
            continue;
        uint64_t word = atomic_exchange(&words[at / 64], 0);
        for (unsigned bit = 0; word != 0;) {
            unsigned skip = (unsigned)__builtin_ctzll(word);
            bit += skip;
            word >>= skip;
            unsigned length = ~word ? (unsigned)__builtin_ctzll(~word) : 64;
            made = append(runs, made, at + bit, length);
            bit += length;
            word = length < 64 ? word >> length : 0;
        }
    }
    *next = at < bits ? at : bits;
    return made;
}

void sp_take_counts(_Atomic uint64_t *words, uint64_t counters, uint16_t *into)
{
    for (uint64_t at = 0; at < counters; at += 4) {
        uint64_t word = atomic_load_explicit(&words[at / 4], memory_order_relaxed);
        if (word != 0)
            word = atomic_exchange(&words[at / 4], 0);
        uint64_t wanted = counters - at < 4 ? counters - at : 4;
        memcpy(into + at, &word, wanted * sizeof *into);
    }
}
