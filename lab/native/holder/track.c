/*
 * Which mappings are tracked. The kernel refuses some (droppable memory; what another userfaultfd has registered), and of
 * others it tells too little (a hugetlb page is marked as a whole). Such a mapping is compared, the others are not.
 *
 * Two who read the marks of one mapping would each miss what the other took. So before any mark is read the mapping is
 * registered, each time: that changes nothing where it is ours, and fails where it is somebody else's.
 *
 * A registration of the target's own would fail where we came first. So from the moment that it has a userfaultfd, memory that it
 * may register is left alone.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "scan.h"

void track_begin(struct watch *watch)
{
    watch->left_count = 0;
    descriptors_look(watch);
}

/* What a program registers is memory that it has mapped itself. */
static bool may_be_registered(const struct mapping *mapping)
{
    return !mapping->of_file && strcmp(mapping->name, "[heap]") != 0 && strcmp(mapping->name, "[stack]") != 0;
}

/* Both lists are by address. */
static const struct verdict *verdict_before(struct watch *watch, const struct mapping *mapping)
{
    size_t low = 0, high = watch->former_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (watch->former[middle].start < mapping->start)
            low = middle + 1;
        else
            high = middle;
    }
    const struct verdict *found = &watch->former[low];
    return low < watch->former_count && found->start == mapping->start && found->end == mapping->end &&
                   found->offset == mapping->offset && found->inode == mapping->inode
               ? found
               : NULL;
}

/* linux/fs.h of kernels before 6.11 lacks it. */
struct mapping_query {
    uint64_t size, flags, address, start, end, mapping_flags, page_bytes, offset, inode;
    uint32_t device_major, device_minor, name_size, build_id_size;
    uint64_t name_address, build_id_address;
};
_Static_assert(sizeof(struct mapping_query) == 104, "struct procmap_query of the kernel");
#define MAPPING_QUERY _IOWR('f', 17, struct mapping_query)

static int maps = -1;

/* As the kernel has it now. False with errno, which is ENOTTY where it cannot be asked (before 6.11). */
static bool query_at(const struct watch *watch, uint64_t address, struct mapping_query *query)
{
    char path[64];
    if (maps < 0) {
        snprintf(path, sizeof path, "/proc/%d/maps", watch->pid);
        maps = open(path, O_RDONLY | O_CLOEXEC);
    }
    *query = (struct mapping_query){.size = sizeof *query, .address = address};
    return maps >= 0 && ioctl(maps, MAPPING_QUERY, query) == 0;
}

/*
 * Threads that slept may have woken and changed the mapping since it was read. To register what is only part of one now would
 * part it, and calls over both parts would fail.
 */
static bool is_as_read(const struct watch *watch, const struct mapping *mapping, bool fresh)
{
    struct mapping_query query;
    if (!query_at(watch, mapping->start, &query))
        return errno == ENOTTY;
    if (fresh)
        return query.start == mapping->start && query.end == mapping->end;
    /* Registering has joined neighbours. */
    return query.start <= mapping->start && query.end >= mapping->end;
}

/*
 * A guard page in a mapping parts it for the kernel, until it may be accessed again: not for ever, then, if its parts were
 * registered and it was not, and calls over all of it would fail meanwhile (mremap(2): EFAULT). So what nobody may access goes with
 * its neighbours. It is not scanned before it can be accessed; what it holds then counts as written.
 */
static void track_shut(const struct watch *watch, uint64_t start, uint64_t end, bool with)
{
    struct mapping_query query;
    if (start >= end || (query_at(watch, start, &query) ? query.start != start || query.end != end : errno != ENOTTY))
        return;
    struct uffdio_register range = {.range = {.start = start, .len = end - start}, .mode = UFFDIO_REGISTER_MODE_WP};
    /* What the kernel refuses, and what is somebody else's, stays as it is. */
    if (ioctl(watch->uffd, UFFDIO_REGISTER, &range) == 0 && !with)
        ioctl(watch->uffd, UFFDIO_UNREGISTER, &range.range);
}

static void track_around(const struct watch *watch, const struct mapping *mapping, bool with)
{
    track_shut(watch, mapping->around_start, mapping->start, with);
    track_shut(watch, mapping->end, mapping->around_end, with);
}

int track(struct watch *watch, const struct mapping *mapping, bool *fresh)
{
    const struct verdict *before = verdict_before(watch, mapping);
    if (before && before->reason != 0)
        return before->reason;
    const uint64_t bytes = mapping->end - mapping->start;
    if (holds_buffer(watch, mapping)) {
        struct uffdio_range range = {.start = mapping->start, .len = bytes};
        if (before)
            ioctl(watch->uffd, UFFDIO_UNREGISTER, &range);
        return LEFT_BUFFER;
    }
    /* What is private is scanned alike, fresh or not: where it was tracked before there is nothing to ask. */
    if (!before || !mapping->is_private) {
        struct scan_region region;
        uint64_t probe = mapping->start;
        *fresh = scan_next(watch->pagemap, &unmarked, &probe, mapping->start + PAGE_BYTES, &region, 1) < 0;
        if (*fresh && errno != EPERM)
            return errno;
    }
    if (!before && !is_as_read(watch, mapping, *fresh))
        return LEFT_CHANGED;
    struct uffdio_register range = {
        .range = {.start = mapping->start, .len = bytes},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    if (ioctl(watch->uffd, UFFDIO_REGISTER, &range) < 0)
        return errno;
    /* The kernel offers zero pages in all memory but hugetlb. */
    const bool huge = !(range.ioctls & (UINT64_C(1) << _UFFDIO_ZEROPAGE));
    const bool own = watch->has_own_uffd && may_be_registered(mapping);
    if (!huge && mapping->is_private && !mapping->of_file && (own || !before))
        track_around(watch, mapping, !own);
    if (!huge && !own)
        return 0;
    if (ioctl(watch->uffd, UFFDIO_UNREGISTER, &range.range) < 0)
        return errno;
    return huge ? LEFT_HUGE : LEFT_OWN;
}

static void judge(struct watch *watch, const struct mapping *mapping, int reason)
{
    watch->verdicts = grown(watch->verdicts, watch->verdict_count, &watch->verdict_room, sizeof *watch->verdicts);
    watch->verdicts[watch->verdict_count++] = (struct verdict){
        .start = mapping->start,
        .end = mapping->end,
        .offset = mapping->offset,
        .inode = mapping->inode,
        .reason = reason,
    };
}

void track_keep(struct watch *watch, const struct mapping *mapping)
{
    judge(watch, mapping, 0);
}

void track_leave(struct watch *watch, const struct mapping *mapping, int reason)
{
    judge(watch, mapping, reason);
    size_t at = 0;
    while (at < watch->left_count && watch->left[at].reason != reason)
        at++;
    if (at == LEFT_REASONS)
        return;
    struct left *left = &watch->left[at];
    SP_INVARIANT(at <= watch->left_count && watch->left_count <= LEFT_REASONS);
    if (at == watch->left_count) {
        watch->left_count++;
        *left = (struct left){.reason = reason, .first = *mapping};
    }
    left->mappings++;
    left->bytes += mapping->end - mapping->start;
}

void track_end(struct watch *watch)
{
    if (maps >= 0)
        close(maps);
    maps = -1;
    struct verdict *former = watch->former;
    const size_t room = watch->former_room;
    watch->former = watch->verdicts;
    watch->former_count = watch->verdict_count;
    watch->former_room = watch->verdict_room;
    watch->verdicts = former;
    watch->verdict_count = 0;
    watch->verdict_room = room;
}

void track_forget(struct watch *watch)
{
    watch->former_count = 0;
    descriptors_forget(watch);
}

/* What subpage has been told, by reason. */
static struct {
    int reason;
    uint64_t bytes;
} told[LEFT_REASONS];
static size_t told_count;

void track_tell(const struct watch *watch, struct message *message)
{
    const struct left *news[LEFT_REASONS];
    size_t count = 0;
    for (size_t i = 0; i < watch->left_count; i++) {
        const struct left *left = &watch->left[i];
        size_t at = 0;
        while (at < told_count && told[at].reason != left->reason)
            at++;
        if (at == LEFT_REASONS || (at < told_count && left->bytes < 2 * told[at].bytes))
            continue;
        SP_INVARIANT(at <= told_count && count < LEFT_REASONS);
        told[at].reason = left->reason;
        told[at].bytes = left->bytes;
        told_count += at == told_count;
        news[count++] = left;
    }
    message_u64(message, count);
    for (size_t i = 0; i < count; i++) {
        message_u64(message, (uint64_t)news[i]->reason);
        message_u64(message, news[i]->bytes);
        message_u64(message, news[i]->mappings);
        message_u64(message, news[i]->first.start);
        message_text(message, news[i]->first.name);
    }
}
