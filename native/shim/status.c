/* Writes the status file of the shim: whole or not at all, since the agent may read it at any moment. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

static void complain(const char *path)
{
    fprintf(stderr, "subpage shim: cannot write %s: %s\n", path, strerror(errno));
}

void status_write(const char *path, const struct shim_status *status)
{
    if (!path)
        return;
    char blocks[AUX_BLOCKS_MAX * 22 + 1] = "";
    for (size_t n = 0, used = 0; n < status->aux_count; n++)
        used += (size_t)snprintf(blocks + used, sizeof blocks - used, "%s%zu", n > 0 ? "," : "", status->aux_bytes[n]);
    char text[1024 + sizeof blocks];
    int length = snprintf(text, sizeof text,
                          "{\"format\":1,\"pid\":%ld,\"tracking\":\"%s\",\"kind\":\"%s\",\"uffd\":%d,"
                          "\"address\":\"0x%jx\",\"bytes\":%zu,\"mappings\":%u,\"guard\":\"%s\",\"fence\":\"%s\","
                          "\"forget\":\"%s\",\"backends\":%u,\"unplugged\":%u,\"aux\":[%s],"
                          "\"failedStep\":\"%s\",\"errno\":%d,\"reason\":\"%s\"}\n",
                          (long)getpid(), status->tracking, status->kind, status->uffd,
                          (uintmax_t)(uintptr_t)status->address, status->bytes, status->mapping_count,
                          status->guard, status->fence, status->forget, status->backend_count, status->unplugged_count, blocks,
                          status->failure.step ? status->failure.step : "", status->failure.error,
                          status->failure.error ? strerror(status->failure.error) : "");
    char next[4096];
    if (length < 0 || (size_t)length >= sizeof text ||
        (size_t)snprintf(next, sizeof next, "%s.next", path) >= sizeof next) {
        errno = ENAMETOOLONG;
        complain(path);
        return;
    }
    unlink(next);
    int fd = open(next, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        complain(next);
        return;
    }
    bool whole = write(fd, text, (size_t)length) == length;
    close(fd);
    if (!whole || rename(next, path) < 0) {
        complain(path);
        unlink(next);
    }
}
