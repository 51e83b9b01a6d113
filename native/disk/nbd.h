/*
 * The NBD server that QEMU mirrors a disk into: a thread of its own that serves one client on a unix socket and gives each
 * write to the journal. Follows the NBD protocol, doc/proto.md of the NetworkBlockDevice project: fixed newstyle
 * negotiation, simple replies. It keeps no copy of the disk, so a read is answered with NBD_EPERM: a mirror's target is never read.
 * It offers neither trim nor write-zeroes, so all changes arrive as plain writes.
 */
#ifndef SUBPAGE_DISK_NBD_H
#define SUBPAGE_DISK_NBD_H

#include "journal.h"

struct nbd_server;

struct nbd_stats {
    bool connected; /* a client has finished its negotiation and may write */
    uint64_t connections; /* so many have done that */
    uint64_t flushes;
    uint64_t requests; /* answered */
};

/* Listens at `path`, mode 0600; a socket that was there is replaced. The journal stays the caller's. NULL with errno set. */
struct nbd_server *nbd_serve(const char *path, uint64_t disk_bytes, struct journal *journal);
/* Ends the thread, whatever it does, stops the journal, and removes the socket. */
void nbd_end(struct nbd_server *server);

void nbd_read_stats(const struct nbd_server *server, struct nbd_stats *stats);

#endif
