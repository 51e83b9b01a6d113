/* Reading one page record of a delta: every length, map and run is checked here, before anything is written. */
#ifndef SUBPAGE_RECORD_H
#define SUBPAGE_RECORD_H

#include "kernels.h"

enum sp_form { SP_FORM_ZERO, SP_FORM_RAW, SP_FORM_LINES, SP_FORM_RUNS, SP_FORM_MASKED };

struct sp_record {
    enum sp_form form;
    const uint8_t *data;    /* raw page, changed lines, or runs */
    uint32_t run_bytes;     /* runs only */
    struct sp_masked_parts masked; /* line_map also for lines */
};

/*
 * Reads the record at `p` (after its gap). Returns the end of it, or NULL with `*problem` set. `end` is the end of the
 * body, behind which SP_DELTA_PAD_BYTES can be read.
 */
const uint8_t *sp_record_parse(enum sp_codec codec, const uint8_t *p, const uint8_t *end, struct sp_record *record,
                               const char **problem);

#endif
