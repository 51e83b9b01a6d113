/* A byte vector that keeps its memory: it grows to what the largest epoch needed and is used again. */
#ifndef SUBPAGE_VECTOR_H
#define SUBPAGE_VECTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "invariant.h"

struct sp_vector {
    uint8_t *data;
    size_t bytes;
    size_t capacity;
};

/* Far above what any use needs, and low enough that no sum below wraps. */
#define SP_VECTOR_BYTES_MAX (SIZE_MAX / 8)

/* Room for `more` bytes behind what is there; false without memory, the content stays. */
static inline bool sp_vector_reserve(struct sp_vector *vector, size_t more)
{
    SP_INVARIANT(vector->bytes <= vector->capacity);
    if (vector->capacity - vector->bytes >= more)
        return true;
    if (more > SP_VECTOR_BYTES_MAX || vector->capacity > SP_VECTOR_BYTES_MAX)
        return false;
    size_t capacity = vector->capacity * 2 + more + 4096;
    uint8_t *data = realloc(vector->data, capacity);
    if (!data)
        return false;
    vector->data = data;
    vector->capacity = capacity;
    return true;
}

static inline bool sp_vector_put(struct sp_vector *vector, const void *from, size_t bytes)
{
    if (!sp_vector_reserve(vector, bytes))
        return false;
    /* Nothing may come from nowhere, and go nowhere. */
    if (bytes == 0)
        return true;
    memcpy(vector->data + vector->bytes, from, bytes);
    vector->bytes += bytes;
    return true;
}

/* As above, into room that was reserved. */
static inline void sp_vector_append(struct sp_vector *vector, const void *from, size_t bytes)
{
    SP_INVARIANT(vector->bytes <= vector->capacity);
    SP_INVARIANT(bytes <= vector->capacity - vector->bytes);
    if (bytes == 0)
        return;
    memcpy(vector->data + vector->bytes, from, bytes);
    vector->bytes += bytes;
}

static inline void sp_vector_append_byte(struct sp_vector *vector, unsigned value)
{
    SP_INVARIANT(value <= UINT8_MAX);
    SP_INVARIANT(vector->bytes < vector->capacity);
    vector->data[vector->bytes++] = (uint8_t)value;
}

static inline void sp_vector_free(struct sp_vector *vector)
{
    free(vector->data);
    memset(vector, 0, sizeof *vector);
}

#endif
