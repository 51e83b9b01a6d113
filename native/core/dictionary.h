/*
 * The line dictionary: 64-byte lines that were sent lately, kept alike on both sides, so that a line that is known goes as
 * a code of 16 bits. After "a dictionary of whole lines" (HotStorage 2024): most of what repeats in a guest's memory from
 * one snapshot to the next repeats as a whole line.
 *
 * Both sides learn the same lines in the same order, so both choose the same slots; the digest sums up all that was learnt.
 * Codes below SP_DICTIONARY_FILLS are lines of one repeated byte and need no slot.
 */
#ifndef SUBPAGE_DICTIONARY_H
#define SUBPAGE_DICTIONARY_H

#include "core.h"

enum {
    SP_DICTIONARY_FILLS = 256,
    SP_DICTIONARY_SLOTS = 65536 - SP_DICTIONARY_FILLS,
    SP_DICTIONARY_BUCKETS = 1 << 15,
    SP_DICTIONARY_WAYS = 4,
};

struct sp_dictionary {
    uint8_t lines[SP_DICTIONARY_SLOTS][SP_LINE_BYTES];
    uint64_t hashes[SP_DICTIONARY_SLOTS];
    uint16_t buckets[SP_DICTIONARY_BUCKETS][SP_DICTIONARY_WAYS]; /* codes; 0: empty */
    uint32_t next; /* the slot that the next line takes, whatever it held */
    uint32_t count;
    uint64_t digest;
};

void sp_dictionary_clear(struct sp_dictionary *dictionary);

/* The code of a line, or -1 when it is not known. */
int32_t sp_dictionary_find(const struct sp_dictionary *dictionary, const uint8_t *line);

/* Does nothing when the line is known already. */
void sp_dictionary_learn(struct sp_dictionary *dictionary, const uint8_t *line);

/* Copies the line of a code; false: nothing has that code. */
bool sp_dictionary_line(const struct sp_dictionary *dictionary, uint16_t code, uint8_t *line);

#endif
