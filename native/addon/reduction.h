/* The state of one direction of one connection, behind a handle (reduce.c): also of its writes to disks (writes.c). */
#ifndef SUBPAGE_REDUCTION_H
#define SUBPAGE_REDUCTION_H

#include "../core/reduce.h"
#include "addon.h"

extern const napi_type_tag subpage_reducer_tag, subpage_restorer_tag;

struct reduction {
    struct sp_reducer *reducer;
    struct sp_restorer *restorer;
    struct sp_vector out;
    int64_t told_bytes;
    bool busy, closed;
};

/* The state of a handle of this kind, or of either when `tag` is NULL. NULL, a TypeError pending, if it is closed or busy. */
struct reduction *subpage_reduction_get(napi_env env, napi_value handle, const napi_type_tag *tag);
/* An operation has ended; it was closed meanwhile, maybe. */
void subpage_reduction_done(napi_env env, struct reduction *state);

#endif
