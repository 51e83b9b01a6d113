/* See space.h. */
#define _GNU_SOURCE
#include "space.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "invariant.h"

#define NO_SLAB UINT32_MAX

enum { NO_CLASS = 0xff };

/* Sizes rise by 64 to 1 KiB, by 128 to 2 KiB, by 256 to 3 KiB; what is longer takes a whole page. */
static unsigned class_of(size_t bytes)
{
    if (bytes <= 1024)
        return (unsigned)((bytes + 63) / 64 - 1);
    if (bytes <= 2048)
        return 16 + (unsigned)((bytes - 1025) / 128);
    if (bytes <= 3072)
        return 24 + (unsigned)((bytes - 2049) / 256);
    return 28;
}

static size_t class_bytes(unsigned class)
{
    if (class < 16)
        return (class + 1) * 64;
    if (class < 24)
        return 1024 + (class - 15) * 128;
    if (class < 28)
        return 2048 + (class - 23) * 256;
    return 4096;
}

size_t space_piece_bytes(size_t bytes)
{
    return class_bytes(class_of(bytes));
}

static unsigned pieces_of(unsigned class)
{
    return SPACE_SLAB_BYTES / (unsigned)class_bytes(class);
}

void space_init(struct space *space, int fd, uint64_t bytes_max)
{
    *space = (struct space){.fd = fd, .empty = NO_SLAB};
    uint64_t slabs = bytes_max / SPACE_SLAB_BYTES;
    space->slab_count_max = slabs < NO_SLAB ? (uint32_t)slabs : NO_SLAB - 1;
    for (unsigned class = 0; class < SPACE_CLASSES; class++)
        space->partial[class] = NO_SLAB;
}

void space_free(struct space *space)
{
    free(space->slabs);
    space->slabs = NULL;
    space->slab_count = space->slab_room = 0;
}

static void list_add(struct space *space, uint32_t *head, uint32_t index)
{
    space->slabs[index].previous = NO_SLAB;
    space->slabs[index].next = *head;
    if (*head != NO_SLAB)
        space->slabs[*head].previous = index;
    *head = index;
}

static void list_remove(struct space *space, uint32_t *head, uint32_t index)
{
    struct space_slab *slab = &space->slabs[index];
    if (slab->next != NO_SLAB)
        space->slabs[slab->next].previous = slab->previous;
    if (slab->previous != NO_SLAB)
        space->slabs[slab->previous].next = slab->next;
    else
        *head = slab->next;
}

/* Room in the book for slabs up to `count`. */
static bool grow(struct space *space, uint32_t count)
{
    if (count > space->slab_count_max) {
        errno = ENOSPC;
        return false;
    }
    if (count > space->slab_room) {
        uint32_t room = space->slab_room ? space->slab_room : 64;
        while (room < count)
            room *= 2;
        struct space_slab *slabs = realloc(space->slabs, (size_t)room * sizeof *slabs);
        if (!slabs) {
            errno = ENOMEM;
            return false;
        }
        space->slabs = slabs;
        space->slab_room = room;
    }
    for (; space->slab_count < count; space->slab_count++) {
        space->slabs[space->slab_count] = (struct space_slab){.class = NO_CLASS};
        list_add(space, &space->empty, space->slab_count);
    }
    return true;
}

static uint32_t begin_slab(struct space *space, unsigned class)
{
    if (space->empty == NO_SLAB && !grow(space, space->slab_count + 1))
        return NO_SLAB;
    uint32_t index = space->empty;
    /* Reserved before it is used: a full file system must be an error here, not a SIGBUS at a later store. */
    if (fallocate(space->fd, 0, (off_t)index * SPACE_SLAB_BYTES, SPACE_SLAB_BYTES) < 0 && errno != EOPNOTSUPP)
        return NO_SLAB;
    list_remove(space, &space->empty, index);
    memset(space->slabs[index].bits, 0, sizeof space->slabs[index].bits);
    space->slabs[index].used = 0;
    space->slabs[index].class = (uint8_t)class;
    list_add(space, &space->partial[class], index);
    space->live++;
    return index;
}

static void end_slab(struct space *space, uint32_t index)
{
    /* Failing to punch costs memory until the slab is used again, nothing else. */
    (void)!fallocate(space->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)index * SPACE_SLAB_BYTES,
                     SPACE_SLAB_BYTES);
    space->slabs[index].class = NO_CLASS;
    list_add(space, &space->empty, index);
    space->live--;
}

uint64_t space_take(struct space *space, size_t bytes)
{
    SP_INVARIANT(bytes > 0 && bytes <= SPACE_PIECE_BYTES_MAX);
    unsigned class = class_of(bytes), pieces = pieces_of(class);
    uint32_t index = space->partial[class];
    if (index == NO_SLAB && (index = begin_slab(space, class)) == NO_SLAB)
        return SPACE_NONE;
    struct space_slab *slab = &space->slabs[index];
    unsigned word = 0;
    while (slab->bits[word] == ~UINT64_C(0))
        word++;
    SP_INVARIANT(word < sizeof slab->bits / sizeof *slab->bits);
    unsigned piece = word * 64 + (unsigned)__builtin_ctzll(~slab->bits[word]);
    slab->bits[word] |= UINT64_C(1) << (piece % 64);
    if (++slab->used == pieces)
        list_remove(space, &space->partial[class], index);
    return (uint64_t)index * SPACE_SLAB_BYTES + piece * class_bytes(class);
}

void space_give(struct space *space, uint64_t offset, size_t bytes)
{
    SP_INVARIANT(bytes > 0 && bytes <= SPACE_PIECE_BYTES_MAX);
    SP_INVARIANT(offset / SPACE_SLAB_BYTES < space->slab_count);
    unsigned class = class_of(bytes);
    uint32_t index = (uint32_t)(offset / SPACE_SLAB_BYTES);
    struct space_slab *slab = &space->slabs[index];
    unsigned piece = (unsigned)(offset % SPACE_SLAB_BYTES / class_bytes(class));
    SP_INVARIANT(slab->class == class && slab->bits[piece / 64] >> (piece % 64) & 1);
    if (slab->used-- == pieces_of(class))
        list_add(space, &space->partial[class], index);
    slab->bits[piece / 64] &= ~(UINT64_C(1) << (piece % 64));
    if (slab->used == 0) {
        list_remove(space, &space->partial[class], index);
        end_slab(space, index);
    }
}

bool space_claim(struct space *space, uint64_t offset, size_t bytes)
{
    if (bytes == 0 || bytes > SPACE_PIECE_BYTES_MAX || offset / SPACE_SLAB_BYTES >= space->slab_count_max)
        return false;
    unsigned class = class_of(bytes);
    uint32_t index = (uint32_t)(offset / SPACE_SLAB_BYTES);
    size_t within = offset % SPACE_SLAB_BYTES, piece_bytes = class_bytes(class);
    unsigned piece = (unsigned)(within / piece_bytes);
    if (within % piece_bytes != 0 || piece >= pieces_of(class) || !grow(space, index + 1))
        return false;
    struct space_slab *slab = &space->slabs[index];
    if (slab->class == NO_CLASS) {
        list_remove(space, &space->empty, index);
        slab->class = (uint8_t)class;
        slab->used = 0;
        memset(slab->bits, 0, sizeof slab->bits);
        list_add(space, &space->partial[class], index);
        space->live++;
    }
    uint64_t bit = UINT64_C(1) << (piece % 64);
    if (slab->class != class || slab->bits[piece / 64] & bit)
        return false;
    slab->bits[piece / 64] |= bit;
    if (++slab->used == pieces_of(class))
        list_remove(space, &space->partial[class], index);
    return true;
}

void space_settle(struct space *space)
{
    for (uint32_t index = 0; index < space->slab_count; index++)
        if (space->slabs[index].class == NO_CLASS)
            (void)!fallocate(space->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)index * SPACE_SLAB_BYTES,
                             SPACE_SLAB_BYTES);
    off_t end = (off_t)space->slab_count * SPACE_SLAB_BYTES;
    (void)!fallocate(space->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end,
                     (off_t)space->slab_count_max * SPACE_SLAB_BYTES - end + SPACE_SLAB_BYTES);
}
