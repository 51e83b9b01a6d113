/*
 * Hashes as a shadow: 16 bytes for each block, where there is no memory for a copy. After the fine-grained identification
 * of Lu and Ravindran (FGBI), with two differences: a changed block must not be missed, for the standby would be wrong in
 * silence, so a hash has 128 bits and is keyed with a seed that the guest does not know (docs/operations.md has the
 * calculation); and what is stored is the hash XOR that of a block of zeros, so that memory of zeros takes no table.
 */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "bytes.h"
#include "kernels.h"

static XXH128_hash_t hash_block(const struct sp_hashed *hashed, const uint8_t *block, size_t bytes)
{
    return XXH3_128bits_withSecretandSeed(block, bytes, hashed->secret, sizeof hashed->secret, hashed->seed);
}

void sp_hashed_open(struct sp_hashed *hashed, const struct sp_shadow *shadow)
{
    static const uint8_t zeros[SP_PAGE_BYTES];
    _Static_assert(sizeof hashed->secret == XXH3_SECRET_DEFAULT_SIZE, "the size that the seed expands to");
    hashed->hashes = shadow->memory;
    hashed->block_lines = shadow->block_lines;
    hashed->seed = shadow->seed;
    XXH3_generateSecret_fromSeed(hashed->secret, shadow->seed);
    XXH128_hash_t zero = hash_block(hashed, zeros, (size_t)shadow->block_lines * SP_LINE_BYTES);
    hashed->zero[0] = zero.low64;
    hashed->zero[1] = zero.high64;
}

static uint64_t lines_of_block(unsigned block, unsigned block_lines)
{
    return block_lines == 64 ? ~0ull : ((1ull << block_lines) - 1) << (block * block_lines);
}

/* With `set` the hashes become those of the content. */
static inline uint64_t compare_page(const struct sp_hashed *hashed, uint64_t page, const uint8_t *content, bool set)
{
    unsigned blocks = SP_LINES_PER_PAGE / hashed->block_lines;
    size_t block_bytes = (size_t)hashed->block_lines * SP_LINE_BYTES;
    uint8_t *entry = hashed->hashes + page * blocks * SP_BLOCK_HASH_BYTES;
    uint64_t map = 0;
    for (unsigned block = 0; block < blocks; block++, entry += SP_BLOCK_HASH_BYTES, content += block_bytes) {
        XXH128_hash_t hash = hash_block(hashed, content, block_bytes);
        uint64_t low = hash.low64 ^ hashed->zero[0], high = hash.high64 ^ hashed->zero[1];
        if (load64(entry) == low && load64(entry + 8) == high)
            continue;
        map |= lines_of_block(block, hashed->block_lines);
        if (set) {
            store64(entry, low);
            store64(entry + 8, high);
        }
    }
    return map;
}

uint64_t sp_hashed_take(const struct sp_hashed *hashed, uint64_t page, const uint8_t *content)
{
    return compare_page(hashed, page, content, true);
}

void sp_hashed_set(const struct sp_shadow *shadow, uint64_t first_page, const uint8_t *content, uint64_t pages)
{
    struct sp_hashed hashed;
    sp_hashed_open(&hashed, shadow);
    for (uint64_t page = 0; page < pages; page++)
        sp_hashed_take(&hashed, first_page + page, content + page * SP_PAGE_BYTES);
}

int64_t sp_shadow_difference(const uint8_t *ram, uint64_t pages, const struct sp_shadow *shadow)
{
    const struct sp_kernels *kernels = sp_kernels_chosen();
    struct sp_hashed hashed;
    if (shadow->hashed)
        sp_hashed_open(&hashed, shadow);
    for (uint64_t page = 0; page < pages; page++) {
        const uint8_t *now = ram + page * SP_PAGE_BYTES;
        uint64_t map = 0;
        if (shadow->hashed) {
            map = compare_page(&hashed, page, now, false);
        } else if (!shadow->slot_of) {
            map = kernels->changed_lines(now, shadow->memory + page * SP_PAGE_BYTES);
        } else if (shadow->slot_of[page] != SP_NO_SLOT) {
            if (shadow->slot_of[page] >= shadow->slots)
                return -2;
            map = kernels->changed_lines(now, shadow->memory + (uint64_t)shadow->slot_of[page] * SP_PAGE_BYTES);
        }
        if (map)
            return (int64_t)(page * SP_LINES_PER_PAGE + (unsigned)__builtin_ctzll(map));
    }
    return -1;
}
