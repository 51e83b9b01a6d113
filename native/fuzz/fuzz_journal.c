#define _GNU_SOURCE

/* The journal of a disk under any sequence of writes, seals, takes and seedings: nothing is lost, and nothing comes in a wrong order. */
#include "journal_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct model model;
    struct choices choices = {data, data + bytes, 1};
    model_run(&model, &choices);
    return 0;
}
