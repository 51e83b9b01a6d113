/*
 * Capture: walks runs of dirty pages, encodes each against the shadow and updates the shadow, into one bounded output.
 * A page is taken only while the worst record still fits, so a full output never costs a page: the position says where
 * the next output goes on.
 */
#include "bytes.h"
#include "kernels.h"

/* Lines fetched ahead of a page that does not follow the present one; the hardware prefetcher brings the rest. */
enum { PREFETCH_LINES = 16 };

static bool inside(const struct sp_run *run, uint64_t pages)
{
    return (uint64_t)run->first + run->count <= pages;
}

/*
 * While the last page of a run is encoded: most of the next run's first page, and one line of the run after, which costs
 * little and has its address translated in time. Dense pages are left to the hardware: fetching those ahead was slower.
 * Inlined by force: to GCC, a function that only prefetches has no effect, and it drops the call.
 */
static inline __attribute__((always_inline)) void look_ahead(const struct sp_capture *job, size_t run)
{
    if (run + 1 < job->run_count && inside(&job->runs[run + 1], job->pages)) {
        uint64_t at = (uint64_t)job->runs[run + 1].first * SP_PAGE_BYTES;
        for (unsigned line = 0; line < PREFETCH_LINES; line++) {
            __builtin_prefetch(job->ram + at + line * SP_LINE_BYTES, 0, 3);
            __builtin_prefetch(job->shadow + at + line * SP_LINE_BYTES, 0, 3);
        }
    }
    if (run + 2 < job->run_count && inside(&job->runs[run + 2], job->pages)) {
        uint64_t at = (uint64_t)job->runs[run + 2].first * SP_PAGE_BYTES;
        __builtin_prefetch(job->ram + at, 0, 3);
        __builtin_prefetch(job->shadow + at, 0, 3);
    }
}

static void put_header(struct sp_capture *job, uint32_t pages, size_t body_bytes)
{
    uint8_t *out = job->out;
    out[0] = 'S';
    out[1] = 'D';
    out[2] = SP_DELTA_VERSION;
    out[3] = (uint8_t)job->codec;
    out[4] = job->whole ? 1 : 0;
    out[5] = out[6] = out[7] = 0;
    store32(out + 8, pages);
    store32(out + 12, (uint32_t)body_bytes);
}

bool sp_capture_run(struct sp_capture *job)
{
    sp_capture_page *encode = sp_kernels_chosen()->capture[job->codec][job->whole];
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
            uint64_t at = page * SP_PAGE_BYTES;
            if (offset + 1 == now->count)
                look_ahead(job, run);
            uint8_t *record = put_uleb(p, (uint32_t)(page - next_page));
            size_t bytes = encode(job->ram + at, job->shadow + at, record, &stats);
            stats.pages++;
            if (bytes > 0) {
                p = record + bytes;
                next_page = page + 1;
                records++;
            }
        }
        if (offset < now->count)
            break;
    }
    memset(p, 0, SP_DELTA_PAD_BYTES);
    put_header(job, records, (size_t)(p - body));
    job->bytes = (size_t)(p - job->out) + SP_DELTA_PAD_BYTES;
    job->run = run;
    job->offset = offset;
    job->stats = stats;
    return true;
}
