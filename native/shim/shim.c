/*
 * The wrappers: they notice when QEMU maps the guest's RAM file and when it gives parts of it back to the system, and
 * they keep its pages small.
 * Contract and environment: shim.h.
 *
 * The guard starts here too and not when the library is loaded: QEMU may fork into the background (-daemonize) before
 * it maps RAM, and threads do not survive a fork.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shim.h"

typedef void *(*mmap_function)(void *, size_t, int, int, int, off_t);
typedef int (*fallocate_function)(int, int, off_t, off_t);
typedef int (*madvise_function)(void *, size_t, int);

static mmap_function next_mmap;
static fallocate_function next_fallocate;
static madvise_function next_madvise;
static char *ram_path, *status_path, *lease_path, *guard_path;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shim_status status = {.tracking = "waiting", .kind = "", .uffd = -1, .guard = "off"};

/* Constructors of other libraries may come here before ours has run. */
static void find_next(void)
{
    if (next_mmap && next_fallocate && next_madvise)
        return;
    next_mmap = (mmap_function)dlsym(RTLD_NEXT, "mmap64");
    next_fallocate = (fallocate_function)dlsym(RTLD_NEXT, "fallocate64");
    next_madvise = (madvise_function)dlsym(RTLD_NEXT, "madvise");
}

static char *take_variable(const char *name)
{
    const char *value = getenv(name);
    char *copy = value && *value ? strdup(value) : NULL;
    unsetenv(name);
    return copy;
}

/* Removes this library from LD_PRELOAD and leaves what others preload. */
static void leave_preload(void)
{
    Dl_info self;
    const char *list = getenv("LD_PRELOAD");
    if (!list || !dladdr((void *)&leave_preload, &self))
        return;
    char *copy = strdup(list), *kept = calloc(1, strlen(list) + 1);
    if (copy && kept) {
        char *rest = copy, *name;
        while ((name = strsep(&rest, ": ")) != NULL) {
            if (!*name || strcmp(name, self.dli_fname) == 0)
                continue;
            if (*kept)
                strcat(kept, ":");
            strcat(kept, name);
        }
        if (*kept)
            setenv("LD_PRELOAD", kept, 1);
        else
            unsetenv("LD_PRELOAD");
    }
    free(copy);
    free(kept);
}

__attribute__((constructor)) static void shim_load(void)
{
    find_next();
    ram_path = take_variable("SUBPAGE_RAM");
    status_path = take_variable("SUBPAGE_SHIM_STATUS");
    lease_path = take_variable("SUBPAGE_LEASE");
    guard_path = take_variable("SUBPAGE_GUARD_QMP");
    leave_preload();
    if (ram_path)
        status_write(status_path, &status);
}

/* The path is looked at now, not at load: QEMU may have created the file itself. */
static bool is_guest_ram(int fd)
{
    struct stat given, wanted;
    return ram_path && fd >= 0 && fstat(fd, &given) == 0 && stat(ram_path, &wanted) == 0 &&
           given.st_dev == wanted.st_dev && given.st_ino == wanted.st_ino;
}

/* Whether a mapping with these flags can change its file. */
static bool can_change(int fd, int flags)
{
    int type = flags & MAP_TYPE;
    return (type == MAP_SHARED || type == MAP_SHARED_VALIDATE) && fd >= 0 &&
           (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
}

static void start_guard_once(void)
{
    static bool tried;
    if (tried || !lease_path || !guard_path)
        return;
    tried = true;
    status.guard = guard_start(lease_path, guard_path) ? "on" : "failed";
    if (strcmp(status.guard, "failed") == 0 && !status.failure.error)
        status.failure = (struct uffd_failure){"starting the guard", errno};
}

static void *map(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    find_next();
    void *mapped = next_mmap(address, bytes, protection, flags, fd, offset);
    int saved_errno = errno;
    if (mapped == MAP_FAILED || !can_change(fd, flags) || !is_guest_ram(fd)) {
        errno = saved_errno;
        return mapped;
    }
    pthread_mutex_lock(&lock);
    watch_add(&status, mapped, bytes, (uint64_t)offset);
    start_guard_once();
    status_write(status_path, &status);
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
    return mapped;
}

static int punch(int fd, int mode, off_t offset, off_t bytes)
{
    find_next();
    int result = next_fallocate(fd, mode, offset, bytes);
    int saved_errno = errno;
    if (result == 0 && (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && is_guest_ram(fd)) {
        pthread_mutex_lock(&lock);
        watch_discarded(&status, (uint64_t)offset, (uint64_t)bytes);
        if (strcmp(status.tracking, "failed") == 0)
            status_write(status_path, &status);
        pthread_mutex_unlock(&lock);
    }
    errno = saved_errno;
    return result;
}

#define EXPORTED __attribute__((visibility("default")))

EXPORTED void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return map(address, bytes, protection, flags, fd, offset);
}

EXPORTED void *mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return map(address, bytes, protection, flags, fd, offset);
}

EXPORTED int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return punch(fd, mode, offset, bytes);
}

EXPORTED int fallocate64(int fd, int mode, off_t offset, off_t bytes)
{
    return punch(fd, mode, offset, bytes);
}

/* QEMU asks for huge pages for all RAM; watch.c says why not here. It treats that advice as optional. */
EXPORTED int madvise(void *address, size_t bytes, int advice)
{
    find_next();
    if (advice == MADV_HUGEPAGE) {
        pthread_mutex_lock(&lock);
        bool watched = watch_covers(&status, address);
        pthread_mutex_unlock(&lock);
        if (watched)
            return 0;
    }
    return next_madvise(address, bytes, advice);
}
