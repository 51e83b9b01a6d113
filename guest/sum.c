/*
 * sum: a server whose answers a client can audit. It adds numbers, on TCP port 7070 (or the port given), for any
 * number of clients; total and sequence number are common to all of them.
 *
 * One line in, one line out; numbers are unsigned 64-bit decimals and the total wraps at 2^64:
 *   add N   ->  ok SEQ TOTAL     SEQ counts all additions since the start, TOTAL includes this one
 *   get     ->  ok SEQ TOTAL     changes nothing
 *   others  ->  error REASON     changes nothing
 *
 * A client that added n numbers alone, and got n answers, must see SEQ = n and TOTAL = their sum, whatever happened
 * to the host in between; an acknowledged addition that is missing shows as a SEQ that went back.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 64, LINE_MAX_BYTES = 128 };

static uint64_t seq, total;
static struct pollfd fds[1 + CLIENTS_MAX];
static struct { char line[LINE_MAX_BYTES]; size_t length; } clients[1 + CLIENTS_MAX];

static int answer(int fd, const char *line) {
  char out[96];
  char *end;
  if (!strncmp(line, "add ", 4) && line[4] >= '0' && line[4] <= '9') {
    errno = 0;
    uint64_t n = strtoull(line + 4, &end, 10);
    if (errno || *end) return dprintf(fd, "error not an unsigned 64-bit number\n");
    total += n;
    seq++;
  } else if (strcmp(line, "get") != 0) return dprintf(fd, "error expected: add N, or get\n");
  snprintf(out, sizeof out, "ok %llu %llu\n", (unsigned long long)seq, (unsigned long long)total);
  return write(fd, out, strlen(out));
}

/* False when the client has gone or sent a line too long. */
static int serve(int slot) {
  char bytes[4096];
  ssize_t got = read(fds[slot].fd, bytes, sizeof bytes);
  if (got <= 0) return got < 0 && errno == EINTR;
  for (ssize_t i = 0; i < got; i++) {
    if (bytes[i] == '\r') continue;
    if (bytes[i] != '\n') {
      if (clients[slot].length == LINE_MAX_BYTES - 1) return 0;
      clients[slot].line[clients[slot].length++] = bytes[i];
      continue;
    }
    clients[slot].line[clients[slot].length] = 0;
    clients[slot].length = 0;
    if (answer(fds[slot].fd, clients[slot].line) < 0) return 0;
  }
  return 1;
}

static void welcome(int listener) {
  int fd = accept(listener, 0, 0), one = 1;
  if (fd < 0) return;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one); /* a vanished client must not keep its slot */
  for (int slot = 1; slot <= CLIENTS_MAX; slot++) {
    if (fds[slot].fd >= 0) continue;
    fds[slot].fd = fd;
    clients[slot].length = 0;
    return;
  }
  close(fd);
}

int main(int count, char **arguments) {
  int port = count > 1 ? atoi(arguments[1]) : 7070, one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  signal(SIGPIPE, SIG_IGN);
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) {
    dprintf(1, "sum cannot listen on port %d: %s\n", port, strerror(errno));
    return 1;
  }
  dprintf(1, "sum listening port=%d\n", port);
  fds[0] = (struct pollfd){.fd = listener, .events = POLLIN};
  for (int slot = 1; slot <= CLIENTS_MAX; slot++) fds[slot] = (struct pollfd){.fd = -1, .events = POLLIN};
  for (;;) {
    if (poll(fds, 1 + CLIENTS_MAX, -1) < 0) continue;
    for (int slot = 1; slot <= CLIENTS_MAX; slot++) {
      if (fds[slot].fd < 0 || !fds[slot].revents || serve(slot)) continue;
      close(fds[slot].fd);
      fds[slot].fd = -1;
    }
    if (fds[0].revents) welcome(listener);
  }
}
