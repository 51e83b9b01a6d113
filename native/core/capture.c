/*
 * Capture: walks runs of dirty pages, encodes each against the shadow and updates the shadow, into one bounded output.
 * A page is taken only while the worst record still fits, so a full output never costs a page: the position says where
 * the next output goes on.
 */
#include "bytes.h"
#include "invariant.h"
#include "kernels.h"

/* Lines fetched ahead of a page that does not follow the present one; the hardware prefetcher brings the rest. */
enum { PREFETCH_LINES = 16 };

static bool inside(const struct sp_run *run, uint64_t pages)
{
    return (uint64_t)run->first + run->count <= pages;
}

/* What is remembered of a page, as far as it is at one place. */
static inline uint8_t *remembered(const struct sp_capture *job, uint64_t page)
{
    const struct sp_shadow *shadow = &job->shadow;
    if (shadow->hashed)
        return shadow->memory + page * (SP_LINES_PER_PAGE / shadow->block_lines) * SP_BLOCK_HASH_BYTES;
    if (!shadow->slot_of)
        return shadow->memory + page * SP_PAGE_BYTES;
    uint64_t slot = shadow->slot_of[page];
    return slot < shadow->slots ? shadow->memory + slot * SP_PAGE_BYTES : NULL;
}

/*
 * While the last page of a run is encoded: most of the next run's first page, and one line of the run after, which costs
 * little and has its address translated in time. Dense pages are left to the hardware: fetching those ahead was slower.
 * Inlined by force: to GCC, a function that only prefetches has no effect, and it drops the call.
 */
static inline __attribute__((always_inline)) void look_ahead(const struct sp_capture *job, size_t run)
{
    if (run + 1 < job->run_count && inside(&job->runs[run + 1], job->pages)) {
        uint64_t page = job->runs[run + 1].first;
        const uint8_t *old = remembered(job, page);
        for (unsigned line = 0; line < PREFETCH_LINES; line++) {
            __builtin_prefetch(job->ram + page * SP_PAGE_BYTES + line * SP_LINE_BYTES, 0, 3);
            if (old)
                __builtin_prefetch(old + line * SP_LINE_BYTES, 0, 3);
        }
    }
    if (run + 2 < job->run_count && inside(&job->runs[run + 2], job->pages)) {
        uint64_t page = job->runs[run + 2].first;
        __builtin_prefetch(job->ram + page * SP_PAGE_BYTES, 0, 3);
        __builtin_prefetch(remembered(job, page), 0, 3);
    }
}

/* One page against its hashes. A copy of it is hashed and sent: a guest may write meanwhile. */
static size_t capture_hashed(const struct sp_capture *job, const struct sp_hashed *hashed, sp_capture_page *encode,
                             uint64_t page, uint8_t *out, struct sp_capture_stats *stats)
{
    uint8_t content[SP_PAGE_BYTES] __attribute__((aligned(64)));
    const uint8_t *ram = job->ram + page * SP_PAGE_BYTES;
    if (job->whole) {
        memset(content, 0, sizeof content);
        size_t bytes = encode(ram, content, out, stats);
        sp_hashed_take(hashed, page, content);
        return bytes;
    }
    memcpy(content, ram, sizeof content);
    __asm__ volatile("" ::: "memory");
    uint64_t map = sp_hashed_take(hashed, page, content);
    if (map == 0)
        return 0;
    unsigned lines = (unsigned)__builtin_popcountll(map);
    stats->changed_pages++;
    stats->changed_lines += lines;
    stats->changed_bytes += lines * SP_LINE_BYTES;
    return sp_kernels_chosen()->encode_lines(content, map, out);
}

static void put_header(struct sp_capture *job, uint32_t pages, size_t body_bytes)
{
    uint8_t *out = job->out;
    out[0] = 'S';
    out[1] = 'D';
    out[2] = SP_DELTA_VERSION;
    out[3] = (uint8_t)(job->shadow.hashed && !job->whole ? SP_CODEC_LINE : job->codec);
    out[4] = job->whole ? 1 : 0;
    out[5] = out[6] = out[7] = 0;
    store32(out + 8, pages);
    store32(out + 12, (uint32_t)body_bytes);
}

bool sp_capture_run(struct sp_capture *job)
{
    const struct sp_kernels *kernels = sp_kernels_chosen();
    sp_capture_page *encode = kernels->capture[job->codec][job->whole];
    const struct sp_shadow *shadow = &job->shadow;
    bool blocks = job->codec == SP_CODEC_LINE && !job->whole && shadow->block_lines > 1;
    /* Where a page is set that the cache does not hold. */
    uint8_t nowhere[SP_PAGE_BYTES] __attribute__((aligned(64))) = {0};
    struct sp_hashed hashed;
    if (shadow->hashed)
        sp_hashed_open(&hashed, shadow);
    /* A body length is 32 bits; a larger output is simply not filled further. */
    size_t capacity = job->capacity > UINT32_MAX ? UINT32_MAX : job->capacity;
    if (capacity < SP_DELTA_MIN_CAPACITY)
        return false;
    uint8_t *body = job->out + SP_DELTA_HEADER_BYTES;
    uint8_t *p = body;
    const uint8_t *limit = job->out + capacity - SP_DELTA_PAD_BYTES - SP_PAGE_RECORD_MAX;
    uint64_t next_page = 0; /* the page whose gap would be 0 */
    uint32_t records = 0;
    struct sp_capture_stats stats = {0};
    size_t run = job->run;
    uint32_t offset = job->offset;

    for (; run < job->run_count && p <= limit; run++, offset = 0) {
        const struct sp_run *now = &job->runs[run];
        if (!inside(now, job->pages) || offset > now->count || (offset < now->count && (uint64_t)now->first + offset < next_page))
            return false;
        for (; offset < now->count && p <= limit; offset++) {
            uint64_t page = (uint64_t)now->first + offset;
            const uint8_t *ram = job->ram + page * SP_PAGE_BYTES;
            if (offset + 1 == now->count)
                look_ahead(job, run);
            uint8_t *old = remembered(job, page);
            if (!old && !job->whole)
                return false;
            uint8_t *record = put_uleb(p, (uint32_t)(page - next_page));
            uint64_t changed_before = stats.changed_pages;
            size_t bytes = shadow->hashed ? capture_hashed(job, &hashed, encode, page, record, &stats)
                           : blocks       ? kernels->capture_blocks(ram, old, shadow->block_lines, record, &stats)
                                          : encode(ram, old ? old : nowhere, record, &stats);
            SP_INVARIANT(bytes <= SP_RECORD_BYTES_MAX);
            stats.pages++;
            if (bytes > 0) {
                p = record + bytes;
                next_page = page + 1;
                records++;
                /* Under `page` there is a record of every page. */
                if (job->changed && stats.changed_pages > changed_before)
                    job->changed[page] = 1;
            }
        }
        if (offset < now->count)
            break;
    }
    SP_INVARIANT(p <= job->out + capacity - SP_DELTA_PAD_BYTES);
    memset(p, 0, SP_DELTA_PAD_BYTES);
    put_header(job, records, (size_t)(p - body));
    job->bytes = (size_t)(p - job->out) + SP_DELTA_PAD_BYTES;
    job->run = run;
    job->offset = offset;
    job->stats = stats;
    return true;
}
