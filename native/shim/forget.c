/*
 * The thread that forgets accesses for the agent (forget.h). It sleeps until it is asked.
 */
#define _GNU_SOURCE
#include "forget.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shim.h"

#define PAGE_BYTES 4096u

static struct forget *request;
/* The last request that was served. */
static uint32_t seen;

/* Of this thread's processor: what it waited for one is no cost to the guest. */
static uint64_t processor_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Pieces end at multiples of their size, so that none covers a whole page table. */
static int forget_run(const struct forget_run *run)
{
    uint64_t offset = (uint64_t)run->first * PAGE_BYTES, end = offset + (uint64_t)run->count * PAGE_BYTES;
    int error = 0;
    while (offset < end) {
        uint64_t next = (offset / FORGET_PIECE_BYTES + 1) * FORGET_PIECE_BYTES;
        if (next > end)
            next = end;
        if (!shim_forget(offset, next - offset)) {
            /* Beyond guest RAM everything else is too; other errors leave the rest worth doing. */
            if (errno == ENOENT)
                return error ? error : ENOENT;
            error = error ? error : errno;
        }
        offset = next;
    }
    return error;
}

static void serve(void)
{
    static struct forget_run runs[FORGET_RUN_COUNT_MAX];
    uint32_t count = request->run_count;
    if (count > FORGET_RUN_COUNT_MAX)
        count = FORGET_RUN_COUNT_MAX;
    memcpy(runs, request->runs, count * sizeof runs[0]);
    uint64_t started = processor_ns(), pages = 0;
    int error = 0;
    for (uint32_t i = 0; i < count; i++) {
        int failed = forget_run(&runs[i]);
        error = error ? error : failed;
        pages += runs[i].count;
    }
    request->error = error;
    request->pages = pages;
    request->ns = processor_ns() - started;
}

static void *forgetter(void *unused)
{
    (void)unused;
    pthread_setname_np(pthread_self(), "subpage-forget");
    for (;;) {
        forget_wait(&request->requested, seen);
        uint32_t wanted = atomic_load(&request->requested);
        if (wanted == seen)
            continue;
        serve();
        seen = wanted;
        atomic_store(&request->done, seen);
        forget_wake(&request->done);
    }
    return NULL;
}

bool forget_start(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    struct stat file;
    void *mapped = MAP_FAILED;
    if (fstat(fd, &file) == 0 && file.st_size >= FORGET_FILE_BYTES)
        mapped = mmap(NULL, FORGET_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    else
        errno = EINVAL;
    int error = errno;
    close(fd);
    errno = error;
    if (mapped == MAP_FAILED)
        return false;
    request = mapped;
    /* What was asked before this QEMU was there is nothing to it; what is asked once its status says so is, however late the thread runs. */
    seen = atomic_load(&request->requested);
    atomic_store(&request->done, seen);
    return shim_thread(forgetter);
}
