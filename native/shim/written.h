/*
 * Marks the chunks of the guest's disks that QEMU writes, in maps that the supervisor has made (native/disk/chunk_map.h): each before
 * the write, whoever mirrors the disk meanwhile and whether anybody does. It sees the calls of the C library that QEMU writes raw files
 * by with aio=threads; for other disks there is no map.
 */
#ifndef SUBPAGE_SHIM_WRITTEN_H
#define SUBPAGE_SHIM_WRITTEN_H

#include <stdint.h>

/* Paths of maps, one a line. Once, before anything is written. */
void written_start(char *paths);

/* Something is going to be written there. */
void written_mark(int fd, int64_t offset, uint64_t bytes);

#endif
