/*
 * Check and apply. The whole delta is checked before the first byte of the image changes; while applying, each record is
 * parsed again, so even a buffer that changes underneath cannot make a write leave the page it names.
 */
#include "bytes.h"
#include "invariant.h"
#include "record.h"

static const char *read_header(const uint8_t *delta, size_t bytes, struct sp_delta_summary *summary)
{
    if (bytes < SP_DELTA_HEADER_BYTES + SP_DELTA_PAD_BYTES)
        return "shorter than a header";
    if (delta[0] != 'S' || delta[1] != 'D')
        return "not a delta";
    if (delta[2] != SP_DELTA_VERSION)
        return "of an unknown version";
    if (delta[3] >= SP_CODEC_COUNT)
        return "of an unknown codec";
    if (delta[4] > 1 || delta[5] || delta[6] || delta[7])
        return "with unknown flags";
    if (load32(delta + 12) != bytes - SP_DELTA_HEADER_BYTES - SP_DELTA_PAD_BYTES)
        return "of another length than its header says";
    if (load64(delta + bytes - SP_DELTA_PAD_BYTES) != 0)
        return "without its closing zeros";
    summary->codec = (enum sp_codec)delta[3];
    summary->whole = delta[4] & 1;
    summary->pages = load32(delta + 8);
    return NULL;
}

static void write_runs(uint8_t *page, const uint8_t *p, const uint8_t *end)
{
    uint32_t at = 0;
    while (p < end) {
        uint32_t equal = 0, changed = 0;
        p = get_uleb(p, end, &equal);
        p = p ? get_uleb(p, end, &changed) : NULL;
        if (!p || equal > SP_PAGE_BYTES - at || changed > SP_PAGE_BYTES - at - equal || changed > (size_t)(end - p))
            return;
        memcpy(page + at + equal, p, changed);
        at += equal + changed;
        p += changed;
    }
}

static void write_record(uint8_t *page, const struct sp_record *record, bool whole)
{
    const struct sp_kernels *kernels = sp_kernels_chosen();
    if (record->form == SP_FORM_RAW) {
        memcpy(page, record->data, SP_PAGE_BYTES);
        return;
    }
    if (whole || record->form == SP_FORM_ZERO)
        memset(page, 0, SP_PAGE_BYTES);
    if (record->form == SP_FORM_LINES)
        kernels->apply_lines(page, record->masked.line_map, record->data);
    else if (record->form == SP_FORM_MASKED)
        kernels->apply_masked(page, &record->masked);
    else if (record->form == SP_FORM_RUNS)
        write_runs(page, record->data, record->data + record->run_bytes);
}

/* Walks every record of a delta whose header was read; `image` NULL only checks. */
static inline const char *walk(const uint8_t *delta, size_t bytes, const struct sp_delta_summary *summary,
                               uint64_t image_pages, uint8_t *image)
{
    const uint8_t *p = delta + SP_DELTA_HEADER_BYTES;
    const uint8_t *end = delta + bytes - SP_DELTA_PAD_BYTES;
    uint64_t page = 0;
    for (uint32_t i = 0; i < summary->pages; i++, page++) {
        uint32_t gap;
        struct sp_record record;
        const char *problem = NULL;
        p = get_uleb(p, end, &gap);
        if (!p)
            return "a page number is malformed";
        page += gap;
        if (page >= image_pages)
            return "a page lies outside the image";
        p = sp_record_parse(summary->codec, p, end, &record, &problem);
        if (!p)
            return problem;
        SP_INVARIANT(p <= end);
        if (image)
            write_record(image + page * SP_PAGE_BYTES, &record, summary->whole);
    }
    return p == end ? NULL : "bytes follow the last record";
}

const char *sp_delta_check(const uint8_t *delta, size_t bytes, uint64_t image_pages, struct sp_delta_summary *summary)
{
    const char *problem = read_header(delta, bytes, summary);
    return problem ? problem : walk(delta, bytes, summary, image_pages, NULL);
}

const char *sp_delta_apply(uint8_t *image, uint64_t image_pages, const uint8_t *delta, size_t bytes,
                           struct sp_delta_summary *summary)
{
    const char *problem = sp_delta_check(delta, bytes, image_pages, summary);
    return problem ? problem : walk(delta, bytes, summary, image_pages, image);
}

size_t sp_delta_pages(const uint8_t *delta, size_t bytes, struct sp_run *runs)
{
    struct sp_delta_summary summary;
    uint64_t page = 0;
    size_t count = 0;
    if (read_header(delta, bytes, &summary))
        return 0;
    const uint8_t *p = delta + SP_DELTA_HEADER_BYTES, *end = delta + bytes - SP_DELTA_PAD_BYTES;
    for (uint32_t i = 0; i < summary.pages; i++, page++) {
        uint32_t gap;
        struct sp_record record;
        const char *problem = NULL;
        if (!(p = get_uleb(p, end, &gap)))
            break;
        page += gap;
        if (!(p = sp_record_parse(summary.codec, p, end, &record, &problem)))
            break;
        SP_INVARIANT(page <= UINT32_MAX);
        SP_INVARIANT(count <= i);
        if (count > 0 && gap == 0)
            runs[count - 1].count++;
        else
            runs[count++] = (struct sp_run){(uint32_t)page, 1};
    }
    return count;
}
