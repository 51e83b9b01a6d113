/* A byte vector that keeps its memory: it grows to what the largest epoch needed and is used again. */
#ifndef SUBPAGE_VECTOR_H
#define SUBPAGE_VECTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct sp_vector {
    uint8_t *data;
    size_t bytes;
    size_t capacity;
};

/* Room for `more` bytes behind what is there; false without memory, the content stays. */
static inline bool sp_vector_reserve(struct sp_vector *vector, size_t more)
{
    if (vector->capacity - vector->bytes >= more)
        return true;
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

static inline void sp_vector_free(struct sp_vector *vector)
{
    free(vector->data);
    memset(vector, 0, sizeof *vector);
}

#endif
