/*
 * The NBD server with a client that writes while the supervisor's side seals, takes and reads: nothing is lost. And its end,
 * whatever the client does; and clients that are silent, or leave in the middle. Also built with ThreadSanitizer.
 * build with: native/disk/nbd.c native/disk/journal.c native/disk/journal_known.c native/disk/journal_take.c native/disk/journal_write.c native/disk/spill.c native/disk/records.c native/disk/chunk_map.c -DNBD_NEGOTIATION_MS=300
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../native/disk/nbd.h"
#include "../../native/disk/nbd_protocol.h"
#include "../../native/fuzz/journal_model.h"
#include "check.h"

enum { WRITES = 4000, JOURNAL_BYTES = 300000 };

static char path[64];
static struct journal *journal;
static struct nbd_server *server;

static void begin(uint64_t journal_bytes)
{
    journal = journal_new(MODEL_DISK_BYTES, journal_bytes);
    server = nbd_serve(path, MODEL_DISK_BYTES, journal);
    CHECK(journal && server);
}

static void end(void)
{
    nbd_end(server);
    journal_free(journal);
    CHECK(access(path, F_OK) < 0);
}

static struct nbd_stats served(void)
{
    struct nbd_stats stats;
    nbd_read_stats(server, &stats);
    return stats;
}

/* ---- a client */

static void give(int fd, const void *bytes, size_t length)
{
    CHECK(send(fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length);
}

static void get(int fd, void *into, size_t length)
{
    CHECK(recv(fd, into, length, MSG_WAITALL) == (ssize_t)length);
}

static bool closed(int fd)
{
    uint8_t byte;
    return recv(fd, &byte, 1, 0) <= 0;
}

static int connect_client(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint8_t greeting[18];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, path);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    get(fd, greeting, sizeof greeting);
    CHECK(get64(greeting) == NBD_MAGIC && get64(greeting + 8) == NBD_OPTION_MAGIC);
    return fd;
}

/* Asks for an export by name, which is the shortest way. */
static int open_client(void)
{
    uint8_t ask[4 + NBD_OPTION_BYTES], answer[10];
    int fd = connect_client();
    put32(ask, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    put64(ask + 4, NBD_OPTION_MAGIC);
    put32(ask + 12, NBD_OPT_EXPORT_NAME);
    put32(ask + 16, 0);
    give(fd, ask, sizeof ask);
    get(fd, answer, sizeof answer);
    CHECK(get64(answer) == MODEL_DISK_BYTES && get16(answer + 8) == NBD_TRANSMISSION_FLAGS);
    return fd;
}

static void ask(int fd, uint16_t type, uint64_t offset, uint32_t length)
{
    uint8_t request[NBD_REQUEST_BYTES];
    put32(request, NBD_REQUEST_MAGIC);
    put16(request + 4, 0);
    put16(request + 6, type);
    put64(request + 8, offset ^ 77);
    put64(request + 16, offset);
    put32(request + 24, length);
    give(fd, request, sizeof request);
}

static uint32_t answered(int fd, uint64_t offset)
{
    uint8_t reply[NBD_REPLY_BYTES];
    get(fd, reply, sizeof reply);
    CHECK(get32(reply) == NBD_REPLY_MAGIC && get64(reply + 8) == (offset ^ 77));
    return get32(reply + 4);
}

/* ---- a guest writes, and a supervisor takes */

static uint8_t disk[MODEL_DISK_BYTES], standby[MODEL_DISK_BYTES];
static atomic_bool written;

static void *guest(void *context)
{
    (void)context;
    uint32_t state = 1;
    int fd = open_client();
    for (unsigned i = 0; i < WRITES; i++) {
        state = state * 1664525u + 1013904223u;
        uint32_t offset = (state >> 8) % (MODEL_DISK_BYTES - 512) / 512 * 512, left = MODEL_DISK_BYTES - offset;
        uint32_t length = i % 50 == 0 ? 100000 : 512 * (1 + (state >> 3) % 16);
        length = length < left ? length : left;
        /* Zeros too, and often the same place twice. */
        memset(disk + offset, (int)(i / 2 % 7), length);
        for (unsigned times = 0; times < 1 + i % 2; times++) {
            ask(fd, NBD_CMD_WRITE, offset, length);
            give(fd, disk + offset, length);
            CHECK(answered(fd, offset) == 0);
        }
    }
    ask(fd, NBD_CMD_FLUSH, 0, 0);
    CHECK(answered(fd, 0) == 0);
    ask(fd, NBD_CMD_DISC, 0, 0);
    CHECK(closed(fd));
    close(fd);
    written = true;
    return NULL;
}

static void take_all(bool sealed)
{
    static uint8_t into[20000];
    for (ssize_t used; (used = journal_take(journal, into, sizeof into, sealed)) > 0;)
        model_apply(standby, into, (size_t)used);
}

static void nothing_is_lost(bool spills)
{
    uint8_t hashes[MODEL_CHUNKS * JOURNAL_HASH_BYTES];
    struct journal_stats stats;
    pthread_t thread;
    begin(spills ? JOURNAL_BYTES / 10 : JOURNAL_BYTES);
    if (spills)
        CHECK(journal_spill(journal, memfd_create("journal", MFD_CLOEXEC), 4 << 20) == 0);
    written = false;
    model_hashes(standby, hashes);
    CHECK(journal_know(journal, hashes, sizeof hashes) == 0);
    journal_record(journal);
    CHECK(pthread_create(&thread, NULL, guest, NULL) == 0);
    for (unsigned round = 0; !written; round++) {
        journal_read_stats(journal, &stats);
        /* One write may be larger than what was free, and none is when nothing is. */
        CHECK(stats.current_bytes + stats.sealed_bytes - stats.spilled_bytes <= JOURNAL_BYTES);
        journal_seal(journal);
        if (round % 7 == 0)
            journal_unseal(journal);
        take_all(true);
        if (round % 3 == 0)
            take_all(false);
        if (round % 11 == 0) {
            model_hashes(standby, hashes);
            CHECK(journal_know(journal, hashes, sizeof hashes) == 0);
        }
        sched_yield();
    }
    pthread_join(thread, NULL);
    journal_seal(journal);
    take_all(true);
    CHECK(memcmp(disk, standby, sizeof disk) == 0);
    CHECK(served().connections == 1 && served().flushes == 1);
    journal_read_stats(journal, &stats);
    CHECK((stats.spilled_total > 0) == spills && stats.spilled_bytes == 0);
    CHECK(stats.writes == WRITES + WRITES / 2 && served().requests == stats.writes + 1);
    end();
}

/* ---- clients that misbehave */

static void silent_clients_are_dropped(void)
{
    begin(JOURNAL_BYTES);
    int silent = connect_client(), next = open_client();
    CHECK(closed(silent));
    /* Served now, and may be silent for as long as it likes. */
    ask(next, NBD_CMD_READ, 0, 512);
    CHECK(answered(next, 0) == NBD_EPERM);
    close(silent);
    close(next);
    while (served().connected)
        sched_yield();
    /* One that says a byte now and then gains nothing by it. */
    int dribbling = connect_client();
    while (send(dribbling, "\0", 1, MSG_NOSIGNAL) == 1)
        usleep(20000);
    close(dribbling);
    end();
}

static unsigned entries(const char *folder)
{
    unsigned count = 0;
    DIR *directory = opendir(folder);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

enum moment { CONNECTED, NEGOTIATED, HALF_HEADER, HALF_DATA, WAITING, LEFT, MOMENTS };

static int client_at(enum moment moment)
{
    static const uint8_t data[200000] = {1};
    if (moment == CONNECTED)
        return connect_client();
    int fd = open_client();
    if (moment == HALF_HEADER)
        give(fd, "\x25\x60", 2);
    if (moment == HALF_DATA || moment == LEFT) {
        ask(fd, NBD_CMD_WRITE, 0, 4096);
        give(fd, data, 4095);
    }
    if (moment == WAITING) {
        struct journal_stats stats = {0};
        /* Two fit, and the third waits. */
        for (unsigned i = 0; i < 3; i++) {
            uint8_t write[60000];
            memset(write, 1 + (int)i, sizeof write);
            ask(fd, NBD_CMD_WRITE, i * 60000, sizeof write);
            give(fd, write, sizeof write);
        }
        while (stats.waiting_ms == 0)
            journal_read_stats(journal, &stats);
    }
    if (moment == LEFT)
        shutdown(fd, SHUT_RDWR);
    return fd;
}

static void ends_at_any_moment(void)
{
    unsigned descriptors = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    for (enum moment moment = 0; moment < MOMENTS; moment++)
        for (unsigned times = 0; times < 5; times++) {
            struct journal_stats stats;
            begin(130000);
            journal_record(journal);
            int fd = client_at(moment);
            journal_read_stats(journal, &stats);
            /* Half a write is none. */
            CHECK(stats.writes == (moment == WAITING ? 2 : 0));
            end();
            if (moment != WAITING)
                CHECK(closed(fd));
            close(fd);
        }
    CHECK(entries("/proc/self/fd") == descriptors && entries("/proc/self/task") == threads);
}

static void only_sockets_are_replaced(void)
{
    struct stat status;
    FILE *file = fopen(path, "w");
    fclose(file);
    journal = journal_new(MODEL_DISK_BYTES, JOURNAL_BYTES);
    CHECK(nbd_serve(path, MODEL_DISK_BYTES, journal) == NULL && errno == EEXIST);
    CHECK(unlink(path) == 0);
    server = nbd_serve(path, MODEL_DISK_BYTES, journal);
    struct journal *other = journal_new(MODEL_DISK_BYTES, JOURNAL_BYTES);
    struct nbd_server *successor = nbd_serve(path, MODEL_DISK_BYTES, other);
    CHECK(server && successor);
    /* Whoever is replaced leaves the other's socket alone. */
    nbd_end(server);
    CHECK(lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) && (status.st_mode & 0777) == 0600);
    close(connect_client());
    nbd_end(successor);
    CHECK(lstat(path, &status) < 0);
    journal_free(journal);
    journal_free(other);
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/subpage-test-nbd-%d", getpid());
    nothing_is_lost(false);
    nothing_is_lost(true);
    silent_clients_are_dropped();
    ends_at_any_moment();
    only_sockets_are_replaced();
    return 0;
}
