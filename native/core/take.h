/*
 * Takes marks out of memory in which other threads or processes set them: each mark is taken once and none is lost,
 * because a word is exchanged for zero in one atomic step. For the shares of the QEMU plugin (native/plugin/share.h).
 */
#ifndef SUBPAGE_TAKE_H
#define SUBPAGE_TAKE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "core.h"

/* Runs of a full word of bits: a run that begins in each second bit. */
enum { SP_TAKE_RUNS_MIN = 33 };

/*
 * From word `from` on, the runs of words that are not 0. Takes nothing. Returns how many runs; `next` is where to go on,
 * `count` when all was seen.
 */
size_t sp_find_words(const _Atomic uint64_t *words, uint64_t count, uint64_t from, struct sp_run *runs, size_t room,
                     uint64_t *next);

/* Takes the words of the runs, in order, into `into`. False: a run outside. */
bool sp_take_words(_Atomic uint64_t *words, uint64_t count, const struct sp_run *runs, size_t run_count, uint64_t *into);

/*
 * From bit `from` on (a multiple of 64) takes bits and returns the runs that they make; `room` is SP_TAKE_RUNS_MIN at
 * least. `next` is where to go on.
 */
size_t sp_take_bits(_Atomic uint64_t *words, uint64_t bits, uint64_t from, struct sp_run *runs, size_t room,
                    uint64_t *next);

/* Takes 16-bit counters, four at a time; `into` has room for them all. */
void sp_take_counts(_Atomic uint64_t *words, uint64_t counters, uint16_t *into);

#endif
