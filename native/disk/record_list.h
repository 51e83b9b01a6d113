/* Records of a journal, in their order. */
#ifndef SUBPAGE_DISK_RECORD_LIST_H
#define SUBPAGE_DISK_RECORD_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "../core/invariant.h"
#include "records.h"

struct record {
    struct record *next;
    uint64_t offset;
    uint32_t length;
    enum record_kind kind;
    /* Of its content, which lies in `body` or in the spill, behind what was taken already. */
    bool spilled;
    uint64_t place; /* in the spill */
    uint32_t place_bytes;
    uint32_t taken;
    size_t cost;
    uint8_t body[];
};

struct list {
    struct record *head, *tail;
    uint64_t bytes; /* costs */
    uint64_t spilled; /* of these, in the spill */
};

static inline uint64_t spilled_of(const struct record *record)
{
    return record->spilled ? record->place_bytes : 0;
}

static inline void list_append(struct list *list, struct record *record)
{
    record->next = NULL;
    if (list->tail)
        list->tail->next = record;
    else
        list->head = record;
    list->tail = record;
    list->bytes += record->cost;
    list->spilled += spilled_of(record);
}

/* `other` goes behind `list`, and is empty then. */
static inline void list_concatenate(struct list *list, struct list *other)
{
    if (!other->head)
        return;
    if (list->tail)
        list->tail->next = other->head;
    else
        list->head = other->head;
    list->tail = other->tail;
    list->bytes += other->bytes;
    list->spilled += other->spilled;
    *other = (struct list){0};
}

/* The caller's from then on. */
static inline struct record *list_remove_head(struct list *list)
{
    struct record *record = list->head;
    SP_INVARIANT(record && list->bytes >= record->cost && list->spilled >= spilled_of(record));
    list->head = record->next;
    list->bytes -= record->cost;
    list->spilled -= spilled_of(record);
    if (!list->head) {
        SP_INVARIANT(list->bytes == 0 && list->spilled == 0);
        list->tail = NULL;
    }
    return record;
}

#endif
