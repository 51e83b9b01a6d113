/*
 * What the target's open descriptors say of its memory: whether it has a userfaultfd of its own, and which buffers it has registered with
 * io_uring. Into those the kernel writes past the page tables, where no mark can be (IORING_REGISTER_BUFFERS, io_uring_register(2)): the
 * mappings that hold them are compared.
 *
 * A ring of which only the registered descriptor is open (IORING_SETUP_REGISTERED_FD_ONLY) is not seen.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "holder.h"

/* Looking may take this share of the time, and is not done more often than this. */
enum { LOOK_SHARE = 20, LOOK_NS_MIN = 20000000 };

static uint64_t next_look_ns;

static void add_buffer(struct watch *watch, uint64_t start, uint64_t bytes)
{
    watch->buffers = grown(watch->buffers, watch->buffer_count, &watch->buffer_room, sizeof *watch->buffers);
    watch->buffers[watch->buffer_count++] = (struct block){.start = start, .end = start + bytes};
}

/* fdinfo of a ring: "UserBufs:\tCOUNT", then a line "INDEX: 0xADDRESS/BYTES" for each. False when the kernel is just using it and says nothing. */
static bool read_ring(struct watch *watch, const char *descriptor)
{
    char path[96], line[256];
    bool said = false;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%.20s", watch->pid, descriptor);
    FILE *info = fopen(path, "re");
    while (info && fgets(line, sizeof line, info)) {
        unsigned long long start, bytes;
        if (strncmp(line, "UserBufs:", 9) == 0)
            said = true;
        else if (said && sscanf(line, " %*u: 0x%llx/%llu", &start, &bytes) == 2 && bytes <= UINT64_MAX - start)
            add_buffer(watch, start, bytes);
        else if (said && !strchr(line, '<'))
            break;
    }
    if (info)
        fclose(info);
    return said;
}

static int by_start(const void *a, const void *b)
{
    uint64_t left = ((const struct block *)a)->start, right = ((const struct block *)b)->start;
    return left < right ? -1 : left > right;
}

static void look(struct watch *watch)
{
    char path[64], target[64];
    snprintf(path, sizeof path, "/proc/%d/fd", watch->pid);
    DIR *folder = opendir(path);
    if (!folder)
        return;
    const size_t former = watch->buffer_count;
    bool all_said = true;
    for (struct dirent *entry; (entry = readdir(folder));) {
        ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);
        if (length <= 0)
            continue;
        target[length] = '\0';
        if (strcmp(target, "anon_inode:[userfaultfd]") == 0)
            watch->has_own_uffd = true;
        else if (strcmp(target, "anon_inode:[io_uring]") == 0)
            all_said = read_ring(watch, entry->d_name) && all_said;
    }
    closedir(folder);
    SP_INVARIANT(former <= watch->buffer_count && watch->buffer_count <= watch->buffer_room);
    /* What a ring said before counts until it says something else. */
    if (all_said) {
        watch->buffer_count -= former;
        if (watch->buffer_count > 0)
            memmove(watch->buffers, watch->buffers + former, watch->buffer_count * sizeof *watch->buffers);
    }
    if (watch->buffer_count > 0)
        qsort(watch->buffers, watch->buffer_count, sizeof *watch->buffers, by_start);
}

void descriptors_look(struct watch *watch)
{
    const uint64_t began = now_ns();
    if (watch->uffd < 0 || began < next_look_ns)
        return;
    look(watch);
    const uint64_t ended = now_ns(), pause = (ended - began) * LOOK_SHARE;
    next_look_ns = ended + (pause > LOOK_NS_MIN ? pause : LOOK_NS_MIN);
}

void descriptors_forget(struct watch *watch)
{
    watch->has_own_uffd = false;
    watch->buffer_count = 0;
    next_look_ns = 0;
}

bool holds_buffer(const struct watch *watch, const struct mapping *mapping)
{
    for (size_t i = 0; i < watch->buffer_count && watch->buffers[i].start < mapping->end; i++)
        if (watch->buffers[i].end > mapping->start)
            return true;
    return false;
}
