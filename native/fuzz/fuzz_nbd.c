/*
 * The NBD server, any bytes from a client: negotiation and requests, or requests at once when the first byte is odd. It never
 * reads or writes outside its buffer, what it records lies on the disk, and it takes no more than there is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const unsigned char *client, *client_end;

/* Gives what the client has sent, in pieces. */
static ssize_t fuzz_recv(int fd, void *into, size_t bytes, int flags)
{
    (void)fd;
    (void)flags;
    size_t left = (size_t)(client_end - client), piece = bytes > 1000 ? bytes - bytes / 3 : bytes;
    if (piece > left)
        piece = left;
    memcpy(into, client, piece);
    client += piece;
    return (ssize_t)piece;
}

static ssize_t fuzz_send(int fd, const void *from, size_t bytes, int flags)
{
    (void)fd;
    (void)flags;
    unsigned char read[256];
    if (bytes > sizeof read)
        abort();
    memcpy(read, from, bytes);
    return (ssize_t)(bytes > 7 ? 7 : bytes);
}

#define recv fuzz_recv
#define send fuzz_send
#include "../disk/nbd.c"
#include "../disk/records.h"

enum { DISK_BYTES = 3 * JOURNAL_CHUNK_BYTES + 77 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static uint8_t into[1 << 20], *buffer;
    struct nbd_server server = {.disk_bytes = DISK_BYTES, .listener = -1, .stop = -1, .client = -1};
    uint64_t count;
    ssize_t used;
    if (bytes == 0)
        return 0;
    /* Nobody makes room, so there is always enough. */
    server.journal = journal_new(DISK_BYTES, UINT64_MAX / 2);
    if (!buffer)
        buffer = malloc(JOURNAL_WRITE_BYTES_MAX);
    server.buffer = buffer;
    journal_record(server.journal);
    client = data + 1;
    client_end = data + bytes;
    if (data[0] & 1)
        while (serve_request(&server, -1)) {
        }
    else
        serve_client(&server, -1);
    while ((used = journal_take(server.journal, into, sizeof into, false)) > 0)
        if (records_check(into, (size_t)used, DISK_BYTES, &count))
            abort();
    journal_free(server.journal);
    return 0;
}
