/*
 * diskload DEVICE JOB SECONDS: writes to a disk for so long, and says how long each operation took.
 *
 *   sync1    4 KiB at random places through the page cache, each followed by fdatasync
 *   sync16   the same by 16 threads
 *   seq      1 MiB after the other, without the page cache
 *   mixed    4 KiB at random places without the page cache, 7 of 10 of them reads
 *
 * The content is new each time, and of no repeated bytes. One line comes out:
 *   diskload job=JOB ops=N us=ELAPSED bytes=N p50us=N p99us=N
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SMALL = 4096, LARGE = 1 << 20, THREADS_MAX = 16, OPS_MAX = 1 << 18 };

static struct job {
  const char *name;
  int threads, bytes, reads; /* reads: of 10 */
  bool direct;
} jobs[] = {{"sync1", 1, SMALL, 0, false}, {"sync16", 16, SMALL, 0, false}, {"seq", 1, LARGE, 0, true}, {"mixed", 1, SMALL, 7, true}};

static struct worker {
  pthread_t thread;
  uint64_t seed, ops;
  uint32_t *us;
  bool failed;
} workers[THREADS_MAX];

static const struct job *job;
static uint64_t end_us, places;
static int fd;

static uint64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t next(uint64_t *state) { /* xorshift64 (Marsaglia 2003) */
  *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
  return *state;
}

static void *work(void *argument) {
  struct worker *me = argument;
  uint64_t *buffer, bytes = (uint64_t)job->bytes;
  if (posix_memalign((void **)&buffer, SMALL, bytes)) me->failed = true;
  for (uint64_t place = 0; !me->failed && now_us() < end_us && me->ops < OPS_MAX; me->ops++) {
    bool reads = (int)(next(&me->seed) % 10) < job->reads;
    if (!reads)
      for (uint64_t n = 0; n < bytes / 8; n++) buffer[n] = next(&me->seed);
    place = job->bytes == LARGE ? (place + 1) % places : next(&me->seed) % places;
    uint64_t from = now_us();
    ssize_t done = reads ? pread(fd, buffer, bytes, (off_t)(place * bytes)) : pwrite(fd, buffer, bytes, (off_t)(place * bytes));
    me->failed = done != (ssize_t)bytes || (!job->direct && fdatasync(fd) != 0);
    me->us[me->ops] = (uint32_t)(now_us() - from);
  }
  return NULL;
}

static int compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  for (size_t n = 0; argc == 4 && n < sizeof jobs / sizeof *jobs; n++)
    if (strcmp(jobs[n].name, argv[2]) == 0) job = &jobs[n];
  double seconds = argc == 4 ? atof(argv[3]) : 0;
  if (!job || seconds <= 0) return fprintf(stderr, "usage: diskload DEVICE sync1|sync16|seq|mixed SECONDS\n"), 2;
  fd = open(argv[1], O_RDWR | (job->direct ? O_DIRECT : 0));
  off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
  if (size < job->bytes) return perror(argv[1]), 1;
  places = (uint64_t)size / (uint64_t)job->bytes;
  uint32_t *all = malloc(sizeof *all * OPS_MAX * (size_t)job->threads);
  if (!all) return perror("diskload"), 1;
  uint64_t from = now_us(), ops = 0;
  end_us = from + (uint64_t)(seconds * 1e6);
  for (int n = 0; n < job->threads; n++) {
    workers[n] = (struct worker){.seed = from * 2654435761u + (uint64_t)n + 1, .us = all + (size_t)n * OPS_MAX};
    if (pthread_create(&workers[n].thread, NULL, work, &workers[n])) return perror("diskload"), 1;
  }
  for (int n = 0; n < job->threads; n++) {
    pthread_join(workers[n].thread, NULL);
    if (workers[n].failed) return fprintf(stderr, "diskload: an operation failed\n"), 1;
    memmove(all + ops, workers[n].us, sizeof *all * workers[n].ops);
    ops += workers[n].ops;
  }
  uint64_t took = now_us() - from;
  if (ops == 0) return fprintf(stderr, "diskload: no operation in time\n"), 1;
  qsort(all, ops, sizeof *all, compare);
  printf("diskload job=%s ops=%llu us=%llu bytes=%llu p50us=%u p99us=%u\n", job->name, (unsigned long long)ops,
         (unsigned long long)took, (unsigned long long)(ops * (uint64_t)job->bytes), all[ops / 2], all[ops * 99 / 100]);
  return 0;
}
