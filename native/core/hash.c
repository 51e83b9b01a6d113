/* XXH3 over blocks of memory (for sharing) and over frames (for the wire), and the comparison of two memories. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "kernels.h"

bool sp_hash_blocks(const uint8_t *memory, uint64_t pages, const struct sp_run *runs, size_t run_count,
                    size_t block_bytes, uint8_t *out)
{
    for (size_t run = 0; run < run_count; run++) {
        if ((uint64_t)runs[run].first + runs[run].count > pages)
            return false;
        const uint8_t *block = memory + (uint64_t)runs[run].first * SP_PAGE_BYTES;
        const uint8_t *end = block + (uint64_t)runs[run].count * SP_PAGE_BYTES;
        for (; block < end; block += block_bytes, out += 16) {
            XXH128_hash_t hash = XXH3_128bits(block, block_bytes);
            XXH128_canonicalFromHash((XXH128_canonical_t *)out, hash);
        }
    }
    return true;
}

uint64_t sp_checksum64(const uint8_t *first, size_t first_bytes, const uint8_t *second, size_t second_bytes)
{
    if (second_bytes == 0)
        return XXH3_64bits(first, first_bytes);
    /* The state is 576 bytes of stack: no allocation per frame. */
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, first, first_bytes);
    XXH3_64bits_update(&state, second, second_bytes);
    return XXH3_64bits_digest(&state);
}

int64_t sp_compare_lines(const uint8_t *a, const uint8_t *b, uint64_t pages, const struct sp_run *runs, size_t run_count)
{
    const struct sp_kernels *kernels = sp_kernels_chosen();
    for (size_t run = 0; run < run_count; run++) {
        uint64_t first = runs[run].first, end = first + runs[run].count;
        if (end > pages)
            return -2;
        for (uint64_t page = first; page < end; page++) {
            uint64_t map = kernels->changed_lines(a + page * SP_PAGE_BYTES, b + page * SP_PAGE_BYTES);
            if (map)
                return (int64_t)(page * SP_LINES_PER_PAGE + (unsigned)__builtin_ctzll(map));
        }
    }
    return -1;
}
