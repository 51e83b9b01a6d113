/*
 * The target's memory as numbered pages. An address space is sparse and changes; a trace numbers pages from 0. A page gets
 * its number when it is first seen to hold something, together with its neighbours in the mapping, and keeps it as long
 * as the program runs: what is mapped there later has the same one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "holder.h"

/*
 * Mappings may be reserved far larger than what is used of them: they are numbered in blocks. Large ones keep neighbours
 * together, until so many pages have numbers that the program's memory must be sparse: then small ones.
 */
static const uint64_t large_block_bytes = UINT64_C(64) << 20, small_block_bytes = UINT64_C(64) << 10;
enum { LARGE_SHARE = 64 };

/* Shared memory that is no file of somebody else's. */
static bool is_memory(const char *name)
{
    return strncmp(name, "/dev/zero", 9) == 0 || strncmp(name, "/memfd:", 7) == 0 || strncmp(name, "/SYSV", 5) == 0 ||
           strncmp(name, "/dev/shm/", 9) == 0;
}

/*
 * Private memory that can be written, or that belongs to no file and may have been writable before (compilers at run time
 * switch between writing and executing), and shared memory that is not a file on disk.
 */
static bool is_own(const char *permissions, unsigned long inode, const char *name)
{
    if ((permissions[0] != 'r' && permissions[1] != 'w') || strcmp(name, "[vvar]") == 0 || strcmp(name, "[vdso]") == 0 ||
        strcmp(name, "[vsyscall]") == 0 || strcmp(name, "[vvar_vclock]") == 0)
        return false;
    if (permissions[3] == 'p')
        return permissions[1] == 'w' || inode == 0;
    return permissions[1] == 'w' && is_memory(name);
}

/*
 * Neighbours are not joined: a mapping of the kernel's is registered as a whole or not at all, so that a scan which is
 * refused has not taken any marks away.
 */
static void add(struct space *space, struct mapping mapping, const char *name)
{
    SP_INVARIANT(mapping.start < mapping.end && mapping.start % PAGE_BYTES == 0 && mapping.end % PAGE_BYTES == 0);
    strncpy(mapping.name, *name == '\0' ? "anonymous" : name, sizeof mapping.name - 1);
    space->mappings =
        grown(space->mappings, space->mapping_count, &space->mapping_room, sizeof *space->mappings);
    space->mappings[space->mapping_count++] = mapping;
}

/* Private memory of no file, that may be accessed again at any time: then it may be one with its neighbours. */
static bool is_shut(const char *permissions, unsigned long inode)
{
    return strncmp(permissions, "---p", 4) == 0 && inode == 0;
}

/* The line before, if it was such. */
static uint64_t shut_start, shut_end;

/* One line: start-end perms offset dev inode name. strtoul and not sscanf: this runs in every epoch. */
static void read_line(struct space *space, char *line)
{
    char *at = line;
    uint64_t start = strtoul(at, &at, 16);
    if (*at != '-')
        return;
    uint64_t end = strtoul(at + 1, &at, 16);
    if (*at != ' ' || strnlen(at, 6) < 6)
        return;
    const char *permissions = at + 1;
    uint64_t offset = strtoul(at + 6, &at, 16);
    at = strchr(at + 1, ' '); /* after the device */
    if (!at)
        return;
    unsigned long inode = strtoul(at + 1, &at, 10);
    while (*at == ' ')
        at++;
    bool is_private = permissions[3] == 'p';
    if (is_shut(permissions, inode) && start < end) {
        struct mapping *last = space->mapping_count > 0 ? &space->mappings[space->mapping_count - 1] : NULL;
        if (last && last->end == start)
            last->around_end = end;
        shut_start = start;
        shut_end = end;
    } else if (is_own(permissions, inode, at) && start < end)
        add(space,
            (struct mapping){
                .start = start,
                .end = end,
                .around_start = shut_end == start ? shut_start : start,
                .around_end = end,
                .offset = offset,
                .inode = inode,
                .is_private = is_private,
                .of_file = is_private && inode != 0,
            },
            at);
}

int space_read(struct space *space, pid_t pid)
{
    static char *text;
    static size_t room;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? ESRCH : errno; /* the thread has ended */
    size_t used = 0;
    for (;;) {
        if (room - used < 8192) {
            room = room ? 2 * room : 65536;
            text = realloc(text, room);
            if (!text)
                abort();
        }
        ssize_t got = read(fd, text + used, room - used - 1);
        if (got < 0) {
            int error = errno;
            close(fd);
            return error;
        }
        if (got == 0)
            break;
        used += (size_t)got;
    }
    close(fd);
    if (used == 0)
        return ESRCH; /* the memory is gone: the process ends */
    SP_INVARIANT(used < room);
    text[used] = '\0';
    space->mapping_count = 0;
    shut_start = shut_end = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        read_line(space, line);
    }
    return 0;
}

size_t space_position(const struct space *space, uint64_t address)
{
    size_t low = 0, high = space->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (space_piece(space, middle)->end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct piece *space_find(const struct space *space, uint64_t address)
{
    size_t at = space_position(space, address);
    const struct piece *piece = at < space->count ? space_piece(space, at) : NULL;
    return piece && piece->start <= address ? piece : NULL;
}

/* Pieces are mostly added from low addresses to high ones: moving the gap with them moves each other piece once at most. */
static void insert_order(struct space *space, size_t at, uint32_t index)
{
    size_t free = space->order_room - space->count;
    if (free == 0) {
        size_t room = space->order_room ? 2 * space->order_room : 64, tail = space->count - space->gap;
        space->order = realloc(space->order, room * sizeof *space->order);
        if (!space->order)
            abort();
        memmove(space->order + room - tail, space->order + space->gap, tail * sizeof *space->order);
        space->order_room = room;
        free = room - space->count;
    }
    SP_INVARIANT(at <= space->count && space->gap <= space->count && index < space->numbered_count);
    uint32_t *order = space->order;
    if (at < space->gap)
        memmove(order + at + free, order + at, (space->gap - at) * sizeof *order);
    else
        memmove(order + space->gap, order + space->gap + free, (at - space->gap) * sizeof *order);
    order[at] = index;
    space->gap = at + 1;
    space->count++;
}

/* Pages with new numbers: part of the last piece where they go on from it, unless that is one of the first `fixed`. */
static void append(struct piece **pieces, size_t *count, size_t *room, size_t fixed, const struct piece *more)
{
    struct piece *last = *count > fixed ? &(*pieces)[*count - 1] : NULL;
    if (last && last->end == more->start && piece_page(last, last->end) == more->first_page &&
        strcmp(last->name, more->name) == 0) {
        last->end = more->end;
        return;
    }
    *pieces = grown(*pieces, *count, room, sizeof **pieces);
    (*pieces)[(*count)++] = *more;
}

static bool insert(struct space *space, size_t at, const struct mapping *mapping, uint64_t start, uint64_t end)
{
    struct piece piece = {.start = start, .end = end, .first_page = space->page_count};
    SP_INVARIANT(mapping->start <= start && start < end && end <= mapping->end);
    /* Pieces do not overlap: an address has one number. */
    SP_INVARIANT(at == 0 || space_piece(space, at - 1)->end <= start);
    SP_INVARIANT(at == space->count || end <= space_piece(space, at)->start);
    SP_INVARIANT(space->page_count <= space->page_limit);
    uint64_t pages = (end - start) / PAGE_BYTES;
    if (pages > space->page_limit - space->page_count)
        return false;
    SP_INVARIANT(space->numbered_count < UINT32_MAX);
    memcpy(piece.name, mapping->name, sizeof piece.name);
    size_t before = space->numbered_count;
    append(&space->numbered, &space->numbered_count, &space->numbered_room, space->former_count, &piece);
    if (space->numbered_count > before)
        insert_order(space, at, (uint32_t)before);
    append(&space->news, &space->news_count, &space->news_room, 0, &piece);
    space->page_count += pages;
    return true;
}

struct block space_block(const struct space *space, const struct mapping *mapping, uint64_t address)
{
    const bool large = space->page_count < space->page_limit / LARGE_SHARE;
    const uint64_t block_bytes = large ? large_block_bytes : small_block_bytes;
    struct block block = {.start = address / block_bytes * block_bytes};
    block.end = block.start + block_bytes;
    if (block.start < mapping->start)
        block.start = mapping->start;
    if (block.end > mapping->end)
        block.end = mapping->end;
    return block;
}

bool space_number(struct space *space, const struct mapping *mapping, uint64_t start, uint64_t end)
{
    uint64_t from = space_block(space, mapping, start).start, to = space_block(space, mapping, end - 1).end;
    while (from < to) {
        size_t at = space_position(space, from);
        uint64_t next = at < space->count ? space_piece(space, at)->start : UINT64_MAX;
        if (next <= from) {
            from = space_piece(space, at)->end;
            continue;
        }
        uint64_t until = next < to ? next : to;
        if (!insert(space, at, mapping, from, until))
            return false;
        from = until;
    }
    return true;
}

void space_forget(struct space *space)
{
    space->count = space->gap = 0;
    space->former_count = space->numbered_count;
}
