/*
 * Room for stored pages in a file, mapped (the pool) or not (swap): slabs of 32 KiB, each cut into pieces of one size. A
 * slab that becomes empty is punched out of the file, so what is not used takes no memory and no disk.
 *
 * The book of slabs is in memory only; after a restart it is made again from the pieces that are in use (space_claim).
 * Not locked: the store's lock covers it.
 */
#ifndef SUBPAGE_SPACE_H
#define SUBPAGE_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SPACE_SLAB_BYTES = 32 * 1024, SPACE_UNIT_BYTES = 64, SPACE_PIECE_BYTES_MAX = 4096, SPACE_CLASSES = 29 };

#define SPACE_NONE UINT64_MAX

struct space_slab {
    uint64_t bits[SPACE_SLAB_BYTES / SPACE_UNIT_BYTES / 64];
    uint32_t next, previous; /* of its list: those with free pieces of its class, or the empty ones */
    uint16_t used;
    uint8_t class;
};

struct space {
    int fd;
    struct space_slab *slabs;
    uint32_t slab_count, slab_room, slab_count_max;
    uint32_t partial[SPACE_CLASSES]; /* first slab with room, or UINT32_MAX */
    uint32_t empty;
    uint32_t live; /* slabs that take room in the file */
};

void space_init(struct space *space, int fd, uint64_t bytes_max);
void space_free(struct space *space);

/* Offset of a piece for 1 to 4096 bytes; SPACE_NONE with errno (ENOSPC, ENOMEM). Its room in the file is reserved. */
uint64_t space_take(struct space *space, size_t bytes);
void space_give(struct space *space, uint64_t offset, size_t bytes);

/* Marks a piece as in use, after a restart; false when it is none or taken. Then space_settle, once. */
bool space_claim(struct space *space, uint64_t offset, size_t bytes);
void space_settle(struct space *space);

/* What a piece for so many bytes takes. */
size_t space_piece_bytes(size_t bytes);

#endif
