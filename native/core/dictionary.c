/* See dictionary.h. */
#define XXH_STATIC_LINKING_ONLY
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "bytes.h"
#include "dictionary.h"

/* The byte that fills the line, or -1. */
static int fill_of(const uint8_t *line)
{
    uint64_t first = load64(line);
    if (first != line[0] * 0x0101010101010101ull)
        return -1;
    for (unsigned at = 8; at < SP_LINE_BYTES; at += 8)
        if (load64(line + at) != first)
            return -1;
    return line[0];
}

static unsigned bucket_of(uint64_t hash)
{
    return (unsigned)(hash >> 32) & (SP_DICTIONARY_BUCKETS - 1);
}

static int32_t find(const struct sp_dictionary *dictionary, const uint8_t *line, uint64_t hash)
{
    const uint16_t *bucket = dictionary->buckets[bucket_of(hash)];
    for (unsigned way = 0; way < SP_DICTIONARY_WAYS; way++) {
        if (bucket[way] == 0)
            continue;
        unsigned slot = bucket[way] - SP_DICTIONARY_FILLS;
        if (dictionary->hashes[slot] == hash && memcmp(dictionary->lines[slot], line, SP_LINE_BYTES) == 0)
            return bucket[way];
    }
    return -1;
}

/* Slots that were given to another line since, or the one that is oldest. */
static unsigned way_to_replace(const struct sp_dictionary *dictionary, unsigned index)
{
    const uint16_t *bucket = dictionary->buckets[index];
    unsigned chosen = 0;
    uint32_t oldest = 0;
    for (unsigned way = 0; way < SP_DICTIONARY_WAYS; way++) {
        if (bucket[way] == 0)
            return way;
        unsigned slot = bucket[way] - SP_DICTIONARY_FILLS;
        if (bucket_of(dictionary->hashes[slot]) != index)
            return way;
        uint32_t age = (dictionary->next + SP_DICTIONARY_SLOTS - slot) % SP_DICTIONARY_SLOTS;
        if (age >= oldest) {
            oldest = age;
            chosen = way;
        }
    }
    return chosen;
}

void sp_dictionary_clear(struct sp_dictionary *dictionary)
{
    memset(dictionary->buckets, 0, sizeof dictionary->buckets);
    dictionary->next = dictionary->count = 0;
    dictionary->digest = 0;
}

int32_t sp_dictionary_find(const struct sp_dictionary *dictionary, const uint8_t *line)
{
    int fill = fill_of(line);
    return fill >= 0 ? fill : find(dictionary, line, XXH3_64bits(line, SP_LINE_BYTES));
}

void sp_dictionary_learn(struct sp_dictionary *dictionary, const uint8_t *line)
{
    if (fill_of(line) >= 0)
        return;
    uint64_t hash = XXH3_64bits(line, SP_LINE_BYTES);
    if (find(dictionary, line, hash) >= 0)
        return;
    uint32_t slot = dictionary->next;
    memcpy(dictionary->lines[slot], line, SP_LINE_BYTES);
    dictionary->hashes[slot] = hash;
    dictionary->next = (slot + 1) % SP_DICTIONARY_SLOTS;
    if (dictionary->count < SP_DICTIONARY_SLOTS)
        dictionary->count++;
    unsigned index = bucket_of(hash);
    dictionary->buckets[index][way_to_replace(dictionary, index)] = (uint16_t)(slot + SP_DICTIONARY_FILLS);
    dictionary->digest = (dictionary->digest << 7 | dictionary->digest >> 57) * 0x9e3779b97f4a7c15ull ^ hash;
}

bool sp_dictionary_line(const struct sp_dictionary *dictionary, uint16_t code, uint8_t *line)
{
    if (code < SP_DICTIONARY_FILLS)
        memset(line, code, SP_LINE_BYTES);
    else if (code - SP_DICTIONARY_FILLS >= (int)dictionary->count)
        return false;
    else
        memcpy(line, dictionary->lines[code - SP_DICTIONARY_FILLS], SP_LINE_BYTES);
    return true;
}
