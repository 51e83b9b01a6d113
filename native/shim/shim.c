/*
 * The mmap wrapper: notices when QEMU maps the guest's RAM file and has the kernel track writes to that range.
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

static mmap_function next_mmap;
static char *ram_path, *status_path, *lease_path, *guard_path;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct uffd uffd = {.fd = -1, .kind = ""};
static struct shim_status status = {.tracking = "waiting", .kind = "", .uffd = -1, .guard = "off"};

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
    next_mmap = (mmap_function)dlsym(RTLD_NEXT, "mmap64");
    ram_path = take_variable("SUBPAGE_RAM");
    status_path = take_variable("SUBPAGE_SHIM_STATUS");
    lease_path = take_variable("SUBPAGE_LEASE");
    guard_path = take_variable("SUBPAGE_GUARD_QMP");
    leave_preload();
    if (ram_path)
        status_write(status_path, &status);
}

/*
 * Whether a mapping can change the file. The path is looked at now, not at load: QEMU may have created the file itself.
 */
static bool is_guest_ram(int fd, int flags)
{
    int type = flags & MAP_TYPE;
    if (!ram_path || fd < 0 || (type != MAP_SHARED && type != MAP_SHARED_VALIDATE))
        return false;
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
        return false;
    struct stat mapped, wanted;
    return fstat(fd, &mapped) == 0 && stat(ram_path, &wanted) == 0 && mapped.st_dev == wanted.st_dev &&
           mapped.st_ino == wanted.st_ino;
}

/* One failure stays: a part of RAM that is not watched makes the whole tracker wrong. */
static void watch(void *address, size_t bytes)
{
    status.address = address;
    status.bytes = bytes;
    status.mapping_count++;
    if (strcmp(status.tracking, "failed") == 0)
        return;
    bool open = uffd.fd >= 0 || uffd_open(&uffd, &status.failure);
    bool watched = open && uffd_register(&uffd, address, bytes, &status.failure);
    status.tracking = watched ? "ok" : "failed";
    status.kind = uffd.kind;
    status.uffd = uffd.fd;
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
    if (!next_mmap)
        next_mmap = (mmap_function)dlsym(RTLD_NEXT, "mmap64");
    void *mapped = next_mmap(address, bytes, protection, flags, fd, offset);
    if (mapped == MAP_FAILED || !is_guest_ram(fd, flags))
        return mapped;
    int saved_errno = errno;
    pthread_mutex_lock(&lock);
    watch(mapped, bytes);
    start_guard_once();
    status_write(status_path, &status);
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
    return mapped;
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
