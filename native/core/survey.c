/* See survey.h. */
#define _GNU_SOURCE
#include "survey.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "bytes.h"
#include "survey_blocks.h"

const uint32_t sp_survey_block_bytes[SP_SURVEY_BLOCK_SIZES] = {64, 256, 1024};

enum { CHUNK_PAGES = 256, PASSES_MAX = 64, SAMPLE_SLOTS = 1 << 16, CODED_SHARE = 4 };

bool sp_page_is_filled(const uint8_t *page)
{
    return load64(page) == load64(page + 8) && memcmp(page, page + 8, SP_PAGE_BYTES - 8) == 0;
}

/* Distinct hashes and how often each came, of those whose lowest `level` bits are zero; the level rises when it fills. */
struct sample {
    uint64_t *hashes; /* 0: free */
    uint32_t *counts;
    unsigned level, used;
};

struct state {
    struct sp_survey *survey;
    uint8_t *chunk;
    uint64_t *first;     /* bit: the first page of its content */
    uint64_t *patched;   /* bit: patched */
    uint64_t *reference; /* bit: patches need it */
    uint64_t *hashes;    /* identical pages: a set of hashes, 0 is free */
    uint64_t hash_mask, hash_count;
    uint32_t pass;
    struct block_table *known_any[SP_SURVEY_BLOCK_SIZES], *known_whole[SP_SURVEY_BLOCK_SIZES];
    struct sample samples[SP_SURVEY_BLOCK_SIZES];
    struct sp_similar similar;
    size_t similar_bytes;
    struct sp_packer *packer;
};

static bool has(const uint64_t *bits, uint64_t page)
{
    return bits[page / 64] >> (page % 64) & 1;
}

static void set(uint64_t *bits, uint64_t page)
{
    bits[page / 64] |= UINT64_C(1) << (page % 64);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int read_at(int fd, uint8_t *to, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t got = pread(fd, to, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        if (got == 0) { /* a file that ends early, as sparse ones may: the rest is zero */
            memset(to, 0, bytes);
            return 0;
        }
        to += got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return 0;
}

/* EINVAL when an extent of memory lies outside it. */
static int read_extent(const struct sp_survey *survey, const struct sp_extent *extent, uint8_t *to, size_t bytes, uint64_t offset)
{
    if (extent->fd >= 0)
        return read_at(extent->fd, to, bytes, offset);
    if (offset > survey->memory_size || bytes > survey->memory_size - offset)
        return EINVAL;
    memcpy(to, survey->memory + offset, bytes);
    return 0;
}

/* Bytes from `offset` on that are a hole; 0 when there is data, or when the file does not tell. */
static uint64_t hole_at(int fd, uint64_t offset, uint64_t bytes)
{
    if (fd < 0)
        return 0;
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? bytes : 0;
    uint64_t hole = (uint64_t)data - offset;
    return hole < bytes ? hole : bytes;
}

typedef void visit_page(struct state *state, const uint8_t *page, uint64_t number, struct sp_survey_counts *counts);

/* Calls `visit` for every page outside holes whose bit is set; all pages when `wanted` is NULL. Counts holes when told. */
static int visit(struct state *state, const uint64_t *wanted, bool count_holes, visit_page *see)
{
    uint64_t number = 0;
    for (size_t i = 0; i < state->survey->extent_count; i++) {
        const struct sp_extent *extent = &state->survey->extents[i];
        struct sp_survey_counts *counts = &state->survey->images[extent->image];
        for (uint64_t done = 0; done < extent->pages;) {
            uint64_t offset = extent->offset + done * SP_PAGE_BYTES, left = extent->pages - done;
            uint64_t hole = hole_at(extent->fd, offset, left * SP_PAGE_BYTES) / SP_PAGE_BYTES;
            if (hole > 0) {
                counts->zero += count_holes ? hole : 0;
                done += hole;
                number += hole;
                continue;
            }
            uint64_t pages = left < CHUNK_PAGES ? left : CHUNK_PAGES;
            int error = read_extent(state->survey, extent, state->chunk, pages * SP_PAGE_BYTES, offset);
            if (error)
                return error;
            for (uint64_t page = 0; page < pages; page++, number++)
                if (!wanted || has(wanted, number))
                    see(state, state->chunk + page * SP_PAGE_BYTES, number, counts);
            done += pages;
        }
    }
    return 0;
}

static void raise_level(struct sample *sample)
{
    uint64_t *old = sample->hashes;
    uint32_t *counts = sample->counts;
    uint64_t *kept = calloc(SAMPLE_SLOTS, sizeof *kept);
    uint32_t *kept_counts = calloc(SAMPLE_SLOTS, sizeof *kept_counts);
    if (!kept || !kept_counts) { /* goes on with what it has; add_block stops at a full table */
        free(kept);
        free(kept_counts);
        return;
    }
    uint64_t bit = UINT64_C(1) << sample->level++;
    sample->used = 0;
    for (unsigned i = 0; i < SAMPLE_SLOTS; i++) {
        if (old[i] == 0 || old[i] & bit)
            continue;
        unsigned slot = (unsigned)(old[i] >> 40) % SAMPLE_SLOTS;
        while (kept[slot])
            slot = (slot + 1) % SAMPLE_SLOTS;
        kept[slot] = old[i];
        kept_counts[slot] = counts[i];
        sample->used++;
    }
    free(old);
    free(counts);
    sample->hashes = kept;
    sample->counts = kept_counts;
}

static void add_block(struct sample *sample, uint64_t hash)
{
    if (hash & ((UINT64_C(1) << sample->level) - 1))
        return;
    if (sample->used >= SAMPLE_SLOTS / 4 * 3) {
        raise_level(sample);
        add_block(sample, hash);
        return;
    }
    unsigned slot = (unsigned)(hash >> 40) % SAMPLE_SLOTS;
    while (sample->hashes[slot] && sample->hashes[slot] != hash)
        slot = (slot + 1) % SAMPLE_SLOTS;
    sample->used += sample->hashes[slot] == 0;
    sample->hashes[slot] = hash;
    sample->counts[slot]++;
}

static void look_at_blocks(struct state *state, const uint8_t *page)
{
    static const uint8_t zeros[1024];
    for (unsigned size = 0; size < SP_SURVEY_BLOCK_SIZES; size++) {
        uint32_t bytes = sp_survey_block_bytes[size];
        struct sp_survey_blocks *blocks = &state->survey->blocks[size];
        blocks->blocks += SP_PAGE_BYTES / bytes;
        for (uint32_t at = 0; at < SP_PAGE_BYTES; at += bytes)
            if (memcmp(page + at, zeros, bytes) == 0)
                blocks->zero++;
            else
                add_block(&state->samples[size], XXH3_64bits(page + at, bytes) | UINT64_C(1) << 63);
    }
}

/* True when the hash was not there. The parts of the passes are never quite even: a full table counts too few as shared. */
static bool insert(struct state *state, uint64_t hash)
{
    uint64_t slot = hash & state->hash_mask;
    while (state->hashes[slot] && state->hashes[slot] != hash)
        slot = (slot + 1) & state->hash_mask;
    if (state->hashes[slot])
        return false;
    if (state->hash_count < state->hash_mask) {
        state->hashes[slot] = hash;
        state->hash_count++;
    }
    return true;
}

static void see_identical(struct state *state, const uint8_t *page, uint64_t number, struct sp_survey_counts *counts)
{
    if (sp_page_is_filled(page)) {
        if (state->pass == 0)
            *(load64(page) ? &counts->filled : &counts->zero) += 1;
        return;
    }
    /* All 128 bits of XXH3 fold into the 64 that are kept: 2^24 pages collide with a chance of 2^-17. */
    XXH128_hash_t both = XXH3_128bits(page, SP_PAGE_BYTES);
    uint64_t hash = both.low64 ^ both.high64 * 0x9e3779b97f4a7c15u;
    hash = hash ? hash : 1;
    if ((hash >> 48) % state->survey->passes != state->pass)
        return;
    if (!insert(state, hash)) {
        counts->shared++;
        return;
    }
    set(state->first, number);
    look_at_blocks(state, page);
}

static int read_page(const struct state *state, uint64_t number, uint8_t *page)
{
    const struct sp_survey *survey = state->survey;
    size_t low = 0, high = survey->extent_count; /* the first extent that ends after the page: in [low, high] */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (survey->extents[middle].first_page + survey->extents[middle].pages <= number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == survey->extent_count)
        return EINVAL;
    const struct sp_extent *extent = &survey->extents[low];
    return read_extent(survey, extent, page, SP_PAGE_BYTES, extent->offset + (number - extent->first_page) * SP_PAGE_BYTES);
}

/* The hashes of this pass; false when it has none of them. */
static bool sketch_part(const struct state *state, const uint8_t *page, uint64_t *hashes)
{
    bool any = false;
    sp_sketch(page, &state->survey->shape, hashes);
    for (unsigned i = 0; i < state->survey->shape.groups; i++) {
        if ((hashes[i] >> 40) % state->survey->patch_passes != state->pass)
            hashes[i] = 0;
        any = any || hashes[i];
    }
    return any;
}

static void see_similar(struct state *state, const uint8_t *page, uint64_t number, struct sp_survey_counts *counts)
{
    uint64_t hashes[SP_SKETCH_GROUPS_MAX];
    uint32_t found[SP_SIMILAR_FOUND_MAX];
    uint8_t reference[SP_PAGE_BYTES], patch[SP_PAGE_RECORD_MAX];
    size_t best = 0;
    uint32_t best_id = 0;
    if (has(state->patched, number) || !sketch_part(state, page, hashes))
        return;
    /* What a patch needs stays whole. */
    size_t count = has(state->reference, number) ? 0 : sp_similar_find(&state->similar, hashes, found);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = read_page(state, found[i], reference) == 0 ? sp_patch_make(page, reference, patch) : 0;
        if (bytes > 0 && (best == 0 || bytes < best)) {
            best = bytes;
            best_id = found[i];
        }
    }
    if (best == 0) {
        sp_similar_add(&state->similar, hashes, (uint32_t)number);
        return;
    }
    counts->patched++;
    counts->patch_bytes += best;
    set(state->patched, number);
    if (!has(state->reference, best_id)) {
        set(state->reference, best_id);
        state->survey->references++;
    }
}

static void know_blocks(struct block_table *const *tables, const uint8_t *page, uint64_t number)
{
    for (unsigned size = 0; size < SP_SURVEY_BLOCK_SIZES; size++)
        if (tables[size])
            block_table_add(tables[size], page, (uint32_t)number);
}

/* A part of the pages: three block sizes and two ways are dear. */
static void code_blocks(struct state *state, const uint8_t *page, uint64_t number, size_t packed_bytes)
{
    if (number % CODED_SHARE != 0)
        return;
    for (unsigned size = 0; size < SP_SURVEY_BLOCK_SIZES; size++) {
        struct sp_survey_blocks *blocks = &state->survey->blocks[size];
        if (!state->known_any[size] || !state->known_whole[size])
            continue;
        size_t any = block_table_code(state->known_any[size], state->packer, page);
        size_t whole = block_table_code(state->known_whole[size], state->packer, page);
        blocks->packed_bytes += packed_bytes;
        blocks->with_any_bytes += any < packed_bytes ? any : packed_bytes;
        blocks->with_whole_bytes += whole < packed_bytes ? whole : packed_bytes;
    }
}

static void see_reference(struct state *state, const uint8_t *page, uint64_t number, struct sp_survey_counts *counts)
{
    (void)counts;
    know_blocks(state->known_any, page, number);
    know_blocks(state->known_whole, page, number);
}

static void see_packed(struct state *state, const uint8_t *page, uint64_t number, struct sp_survey_counts *counts)
{
    uint8_t packed[SP_PACK_ROOM];
    if (has(state->patched, number) || has(state->reference, number))
        return;
    size_t bytes = sp_pack(state->packer, page, packed);
    code_blocks(state, page, number, bytes ? bytes : SP_PAGE_BYTES);
    know_blocks(state->known_any, page, number);
    if (bytes == 0) {
        know_blocks(state->known_whole, page, number);
        return;
    }
    counts->packed++;
    counts->packed_bytes += bytes;
    state->survey->packings[packed[0]]++;
}

/* Divides the memory: as many passes as the set of hashes needs. */
static int make_tables(struct state *state, uint64_t pages)
{
    struct sp_survey *survey = state->survey;
    size_t words = (size_t)(pages / 64 + 1);
    uint64_t slots = 64;
    for (survey->passes = 1; survey->passes <= PASSES_MAX; survey->passes++) {
        uint64_t wanted = pages / survey->passes * 3 / 2 + 64;
        for (slots = 64; slots < wanted;)
            slots *= 2;
        if (slots * sizeof(uint64_t) <= survey->memory_bytes)
            break;
    }
    if (survey->passes > PASSES_MAX)
        return EFBIG;
    state->hash_mask = slots - 1;
    state->hashes = malloc(slots * sizeof(uint64_t));
    state->first = calloc(words, 8);
    state->patched = calloc(words, 8);
    state->reference = calloc(words, 8);
    state->chunk = aligned_alloc(64, CHUNK_PAGES * SP_PAGE_BYTES);
    state->packer = sp_packer_new();
    bool good = state->hashes && state->first && state->patched && state->reference && state->chunk && state->packer;
    for (unsigned i = 0; i < SP_SURVEY_BLOCK_SIZES; i++) {
        state->samples[i].hashes = calloc(SAMPLE_SLOTS, sizeof(uint64_t));
        state->samples[i].counts = calloc(SAMPLE_SLOTS, sizeof(uint32_t));
        good = good && state->samples[i].hashes && state->samples[i].counts;
    }
    return good ? 0 : ENOMEM;
}

/* Divides the memory: as many passes as the table of similar pages needs. */
static int make_similar(struct state *state, uint64_t unique)
{
    struct sp_survey *survey = state->survey;
    size_t bytes = 0;
    for (survey->patch_passes = 1; survey->patch_passes <= PASSES_MAX; survey->patch_passes++) {
        bytes = sp_similar_bytes(&survey->shape, unique / survey->patch_passes + 1);
        if (bytes <= survey->memory_bytes)
            break;
    }
    if (survey->patch_passes > PASSES_MAX)
        return EFBIG;
    state->similar.entries = aligned_alloc(64, bytes);
    state->similar_bytes = bytes;
    return state->similar.entries ? 0 : ENOMEM;
}

static int find_similar(struct state *state, uint64_t unique)
{
    int error = make_similar(state, unique);
    for (state->pass = 0; !error && state->pass < state->survey->patch_passes; state->pass++) {
        sp_similar_init(&state->similar, &state->survey->shape, state->similar.entries, state->similar_bytes);
        error = visit(state, state->first, false, see_similar);
    }
    free(state->similar.entries);
    state->similar.entries = NULL;
    return error;
}

/* Without memory for the tables of blocks these figures are missing, and nothing else. */
static int pack_others(struct state *state)
{
    for (unsigned size = 0; size < SP_SURVEY_BLOCK_SIZES; size++) {
        uint64_t bytes = state->survey->memory_bytes / (2 * SP_SURVEY_BLOCK_SIZES);
        state->known_any[size] = block_table_new(sp_survey_block_bytes[size], bytes);
        state->known_whole[size] = block_table_new(sp_survey_block_bytes[size], bytes);
    }
    int error = visit(state, state->reference, false, see_reference);
    return error ? error : visit(state, state->first, false, see_packed);
}

static void sum_up_blocks(struct state *state)
{
    for (unsigned size = 0; size < SP_SURVEY_BLOCK_SIZES; size++)
        for (unsigned i = 0; i < SAMPLE_SLOTS; i++) {
            state->survey->blocks[size].distinct += state->samples[size].counts[i] > 0;
            state->survey->blocks[size].sampled += state->samples[size].counts[i];
        }
}

static uint64_t unique_pages(const struct state *state, uint64_t pages)
{
    uint64_t unique = 0;
    for (size_t i = 0; i <= pages / 64; i++)
        unique += (unsigned)__builtin_popcountll(state->first[i]);
    return unique;
}

static int run(struct state *state, uint64_t pages)
{
    struct sp_survey *survey = state->survey;
    int error = make_tables(state, pages);
    uint64_t started = now_ns(), then;
    for (state->pass = 0; !error && state->pass < survey->passes; state->pass++) {
        state->hash_count = 0;
        memset(state->hashes, 0, (state->hash_mask + 1) * sizeof(uint64_t));
        error = visit(state, NULL, state->pass == 0, see_identical);
    }
    if (error)
        return error;
    sum_up_blocks(state);
    free(state->hashes);
    state->hashes = NULL;
    survey->share_ns = (then = now_ns()) - started;
    if (survey->patch) {
        error = find_similar(state, unique_pages(state, pages));
    }
    survey->patch_ns = (started = now_ns()) - then;
    if (!error && survey->pack)
        error = pack_others(state);
    survey->pack_ns = now_ns() - started;
    return error;
}

int sp_survey_run(struct sp_survey *survey)
{
    struct state state = {.survey = survey};
    uint64_t pages = 0;
    for (size_t i = 0; i < survey->extent_count; i++) {
        survey->extents[i].first_page = pages;
        pages += survey->extents[i].pages;
        survey->images[survey->extents[i].image].pages += survey->extents[i].pages;
    }
    int error = pages >= UINT32_MAX ? EFBIG : run(&state, pages);
    free(state.hashes);
    free(state.first);
    free(state.patched);
    free(state.reference);
    free(state.chunk);
    free(state.similar.entries);
    sp_packer_free(state.packer);
    for (unsigned i = 0; i < SP_SURVEY_BLOCK_SIZES; i++) {
        block_table_free(state.known_any[i]);
        block_table_free(state.known_whole[i]);
        free(state.samples[i].hashes);
        free(state.samples[i].counts);
    }
    return error;
}
