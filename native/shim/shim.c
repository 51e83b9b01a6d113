/*
 * The wrappers: they notice when QEMU maps or unmaps the guest's RAM file and when it gives parts of it back to the
 * system, and they keep its pages small.
 * Contract: shim.h.
 *
 * The threads start here too and not when the library is loaded: QEMU may fork into the background (-daemonize) before
 * it maps RAM, and threads do not survive a fork.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "environment.h"
#include "fence.h"
#include "flush.h"
#include "shim.h"
#include "written.h"

typedef int (*fallocate_function)(int, int, off_t, off_t);
typedef int (*madvise_function)(void *, size_t, int);
typedef int (*munmap_function)(void *, size_t);

static map_function next_mmap;
static fallocate_function next_fallocate;
static madvise_function next_madvise;
static munmap_function next_munmap;
static struct environment told;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shim_status status = {.tracking = "waiting", .kind = "", .uffd = -1, .guard = "off", .fence = "off", .forget = "off"};

/* Constructors of other libraries may come here before ours has run. */
static void find_next(void)
{
    if (next_mmap && next_fallocate && next_madvise && next_munmap)
        return;
    next_mmap = (map_function)dlsym(RTLD_NEXT, "mmap64");
    next_fallocate = (fallocate_function)dlsym(RTLD_NEXT, "fallocate64");
    next_madvise = (madvise_function)dlsym(RTLD_NEXT, "madvise");
    next_munmap = (munmap_function)dlsym(RTLD_NEXT, "munmap");
}

__attribute__((constructor)) static void shim_load(void)
{
    find_next();
    environment_read(&told);
    if (told.ram_backends)
        backends_start(told.ram_backends);
    if (told.held)
        refuse_if_held(told.held);
    if (told.ram && told.fresh_ram)
        fresh_files(told.fresh_ram, told.ram, told.lease, told.forget);
    if (told.ram)
        status_write(told.status, &status);
}

/* What was mapped first stays the guest's RAM, though its path may lead elsewhere later, or nowhere. */
static struct {
    atomic_bool known;
    dev_t device;
    ino_t inode;
} guest_ram;

/* The path is looked at now, not at load: QEMU may have created the file itself. */
static bool is_guest_ram(int fd)
{
    struct stat given, wanted;
    if (!told.ram || fd < 0 || fstat(fd, &given) < 0)
        return false;
    if (atomic_load(&guest_ram.known))
        return given.st_dev == guest_ram.device && given.st_ino == guest_ram.inode;
    return stat(told.ram, &wanted) == 0 && given.st_dev == wanted.st_dev && given.st_ino == wanted.st_ino;
}

/* With the lock held. */
static void remember_guest_ram(int fd)
{
    struct stat given;
    if (atomic_load(&guest_ram.known) || fstat(fd, &given) < 0)
        return;
    guest_ram.device = given.st_dev;
    guest_ram.inode = given.st_ino;
    atomic_store(&guest_ram.known, true);
}

/* Whether a mapping with these flags can change its file. */
static bool can_change(int fd, int flags)
{
    int type = flags & MAP_TYPE;
    return (type == MAP_SHARED || type == MAP_SHARED_VALIDATE) && fd >= 0 &&
           (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
}

static void note_failure(const char *state, const char *step)
{
    if (strcmp(state, "failed") == 0 && !status.failure.error)
        status.failure = (struct uffd_failure){step, errno};
}

static void start_threads_once(void)
{
    static bool tried;
    if (tried)
        return;
    tried = true;
    environment_leave();
    if (told.disk_maps)
        written_start(told.disk_maps);
    if (told.lease) {
        struct lease *lease = lease_map(told.lease);
        status.fence = lease ? "on" : "failed";
        note_failure(status.fence, "mapping the lease");
        if (lease) {
            fence_start(lease);
            flush_start(lease);
        }
        if (told.guard_qmp) {
            status.guard = lease && guard_start(lease, told.guard_qmp) ? "on" : "failed";
            note_failure(status.guard, "starting the guard");
        }
    }
    if (told.forget) {
        status.forget = forget_start(told.forget) ? "on" : "failed";
        note_failure(status.forget, "starting to forget accesses");
    }
}

bool shim_thread(void *(*run)(void *))
{
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 128 * 1024);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, &attributes, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    errno = error;
    return error == 0;
}

bool shim_forget(uint64_t offset, uint64_t bytes)
{
    pthread_mutex_lock(&lock);
    bool done = watch_forget(&status, offset, bytes);
    int saved_errno = errno;
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
    return done;
}

/* With the lock held: what is mapped there belongs to the guest. */
static void watch(const void *mapped, size_t bytes, uint64_t offset)
{
    watch_add(&status, mapped, bytes, offset);
    start_threads_once();
    status_write(told.status, &status);
}

/* MAP_FAILED: it is QEMU's alone. */
static void *map_aux(void *address, size_t bytes, int protection, int flags)
{
    int saved_errno = errno;
    uint64_t offset = 0;
    pthread_mutex_lock(&lock);
    /* A part of RAM that QEMU replaces, as after a memory error, has its place already. */
    void *mapped = watch_covers(&status, address)
                       ? MAP_FAILED
                       : aux_map(&status, next_mmap, address, bytes, protection, flags, &offset);
    if (mapped != MAP_FAILED)
        watch(mapped, bytes, offset);
    else
        status_write(told.status, &status);
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
    return mapped;
}

/* MAP_FAILED: it is not the next memory backend, or cannot be. */
static void *map_backend(void *address, size_t bytes, int protection)
{
    int saved_errno = errno;
    uint64_t offset = 0;
    pthread_mutex_lock(&lock);
    if (!backends_is_next(bytes)) {
        pthread_mutex_unlock(&lock);
        return MAP_FAILED;
    }
    int fd = backends_map(&status, next_mmap, told.ram, address, bytes, protection, &offset);
    if (fd >= 0) {
        remember_guest_ram(fd);
        aux_start(fd);
        close(fd);
        watch(address, bytes, offset);
    } else
        status_write(told.status, &status);
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
    return fd >= 0 ? address : MAP_FAILED;
}

static void *map(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    find_next();
    if (told.ram && told.ram_backends && aux_is_block(bytes, protection, flags, fd)) {
        void *backend = map_backend(address, bytes, protection);
        if (backend != MAP_FAILED)
            return backend;
    }
    if (told.aux_ram && atomic_load(&guest_ram.known) && aux_is_block(bytes, protection, flags, fd)) {
        void *block = map_aux(address, bytes, protection, flags);
        if (block != MAP_FAILED)
            return block;
    }
    void *mapped = next_mmap(address, bytes, protection, flags, fd, offset);
    int saved_errno = errno;
    if (mapped == MAP_FAILED || !can_change(fd, flags) || !is_guest_ram(fd)) {
        errno = saved_errno;
        return mapped;
    }
    pthread_mutex_lock(&lock);
    remember_guest_ram(fd);
    aux_start(fd);
    watch(mapped, bytes, (uint64_t)offset);
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
    return mapped;
}

static int punch(int fd, int mode, off_t offset, off_t bytes)
{
    find_next();
    if (bytes > 0)
        written_mark(fd, offset, (uint64_t)bytes);
    int result = next_fallocate(fd, mode, offset, bytes);
    int saved_errno = errno;
    if (result == 0 && (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && is_guest_ram(fd)) {
        pthread_mutex_lock(&lock);
        watch_discarded(&status, (uint64_t)offset, (uint64_t)bytes);
        if (strcmp(status.tracking, "failed") == 0)
            status_write(told.status, &status);
        pthread_mutex_unlock(&lock);
    }
    errno = saved_errno;
    return result;
}

static int backend_discard(uint64_t offset, size_t bytes)
{
    int fd = open(told.ram, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    /* A file that has no name any more keeps what it has: the balloon gains nothing, and the guest loses nothing. */
    if (fd < 0 || !is_guest_ram(fd)) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    int result = punch(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
    int saved_errno = errno;
    close(fd);
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
    /* The balloon: QEMU takes a memory backend for anonymous, for which this would give it back. */
    if (advice == MADV_DONTNEED && told.ram && told.ram_backends) {
        uint64_t offset;
        pthread_mutex_lock(&lock);
        bool covered = backends_cover(address, bytes, &offset);
        pthread_mutex_unlock(&lock);
        if (covered)
            return backend_discard(offset, bytes);
    }
    return next_madvise(address, bytes, advice);
}

/* What lies there afterwards is not guest RAM, and dropping its pages could lose data. */
EXPORTED int munmap(void *address, size_t bytes)
{
    find_next();
    if (!told.ram)
        return next_munmap(address, bytes);
    pthread_mutex_lock(&lock);
    watch_remove(&status, address, bytes);
    if (backends_unmapped(&status, address, bytes))
        status_write(told.status, &status);
    pthread_mutex_unlock(&lock);
    return next_munmap(address, bytes);
}
