/* What the shim knows of descriptors that QEMU's threads wait for (read_ahead.c, wakeups.c). */
#ifndef SUBPAGE_WAKEUPS_H
#define SUBPAGE_WAKEUPS_H

#include <stdbool.h>
#include <stddef.h>

/* Descriptors from here on are left as they are. */
#define WATCHED_FDS 1024

/* Whether poll(2) has waited for it. It is below WATCHED_FDS. */
bool is_polled(int fd);

/* Whether a write of so many bytes would only wake a reader that is woken already; else it is to be written, and counts as told. */
bool wakeup_is_due(int fd, size_t bytes);

/* It could not be written. */
void wakeup_failed(int fd);

/* The number becomes another file's. */
void wakeup_forget(int fd);

#endif
