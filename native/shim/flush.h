/* What flushes of disks take of the pauses, added up in the lease: `flushed_ns`. */
#ifndef SUBPAGE_FLUSH_H
#define SUBPAGE_FLUSH_H

struct lease;

/* From now on flushes are measured while a pause is held. */
void flush_start(struct lease *lease);

#endif
