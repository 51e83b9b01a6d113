/*
 * Of files, sockets and the clock what Node does not offer: memfd_create(2), renameat2(2), locks of ranges (fcntl(2)), SO_PEERCRED and
 * datagrams (unix(7)), adjtimex(2).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timex.h>
#include <sys/un.h>
#include <unistd.h>

#include "addon.h"

#define PATH_BYTES 4096

static bool get_text(napi_env env, napi_value value, const char *what, char *text)
{
    size_t length;
    if (napi_get_value_string_utf8(env, value, text, PATH_BYTES, &length) == napi_ok && length < PATH_BYTES - 1)
        return true;
    napi_throw_type_error(env, NULL, what);
    return false;
}

/* memoryFile(name) -> descriptor of a file that is only memory; the caller closes it. */
static napi_value memory_file(napi_env env, napi_callback_info info)
{
    napi_value argv[1], result;
    char name[PATH_BYTES];
    if (!subpage_args(env, info, 1, argv) || !get_text(env, argv[0], "memoryFile(name)", name))
        return NULL;
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0)
        return throw_errno(env, "memfd_create");
    napi_create_int32(env, fd, &result);
    return result;
}

/* exchangeFiles(one, other): each has the other's name, from one moment on. Throws with code EINVAL where the file system cannot. */
static napi_value exchange_files(napi_env env, napi_callback_info info)
{
    napi_value argv[2];
    char one[PATH_BYTES], other[PATH_BYTES];
    if (!subpage_args(env, info, 2, argv) || !get_text(env, argv[0], "exchangeFiles(one, other)", one) ||
        !get_text(env, argv[1], "exchangeFiles(one, other)", other))
        return NULL;
    if (renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) < 0)
        return throw_errno(env, one);
    return NULL;
}

/* rangeLocked(fd, from, bytes) -> whether another open file holds a lock, of either kind, on a byte of this range. */
static napi_value range_locked(napi_env env, napi_callback_info info)
{
    napi_value argv[3], result;
    uint64_t fd, from, bytes;
    if (!subpage_args(env, info, 3, argv) || !subpage_get_uint(env, argv[0], INT32_MAX, "fd", &fd) ||
        !subpage_get_uint(env, argv[1], INT32_MAX, "from", &from) || !subpage_get_uint(env, argv[2], INT32_MAX, "bytes", &bytes))
        return NULL;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)from, .l_len = (off_t)bytes};
    if (fcntl((int)fd, F_OFD_GETLK, &lock) < 0)
        return throw_errno(env, "F_OFD_GETLK");
    return napi_get_boolean(env, lock.l_type != F_UNLCK, &result) == napi_ok ? result : NULL;
}

/* peerPid(fd) -> the process that listens at the other end of a unix socket. */
static napi_value peer_pid(napi_env env, napi_callback_info info)
{
    napi_value argv[1], result;
    uint64_t fd;
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    if (!subpage_args(env, info, 1, argv) || !subpage_get_uint(env, argv[0], INT32_MAX, "fd", &fd))
        return NULL;
    if (getsockopt((int)fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0)
        return throw_errno(env, "SO_PEERCRED");
    napi_create_int32(env, peer.pid, &result);
    return result;
}

/*
 * sendDatagram(path, text): one message to a unix datagram socket; a path that begins with @ is in the abstract namespace. Does
 * not wait: a receiver that does not read is EAGAIN.
 */
static napi_value send_datagram(napi_env env, napi_callback_info info)
{
    napi_value argv[2];
    char path[PATH_BYTES], text[PATH_BYTES];
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!subpage_args(env, info, 2, argv) || !get_text(env, argv[0], "sendDatagram(path, text)", path) ||
        !get_text(env, argv[1], "sendDatagram(path, text)", text))
        return NULL;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof to.sun_path) {
        errno = length == 0 ? EINVAL : ENAMETOOLONG;
        return throw_errno(env, path);
    }
    memcpy(to.sun_path, path, length);
    if (path[0] == '@')
        to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return throw_errno(env, "socket");
    /* An abstract name ends where its length says, and a path at its zero. */
    socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (path[0] != '@'));
    bool sent = sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&to, bytes) >= 0;
    int error = errno;
    close(fd);
    errno = error;
    return sent ? NULL : throw_errno(env, path);
}

/* clockSynchronized() -> whether something keeps this host's clock right (adjtimex(2)); null where the kernel does not tell. */
static napi_value clock_synchronized(napi_env env, napi_callback_info info)
{
    napi_value result;
    struct timex none = {0};
    if (!subpage_args(env, info, 0, NULL))
        return NULL;
    int state = adjtimex(&none);
    if (state < 0)
        return napi_get_null(env, &result) == napi_ok ? result : NULL;
    return napi_get_boolean(env, state != TIME_ERROR && !(none.status & STA_UNSYNC), &result) == napi_ok ? result : NULL;
}

void subpage_register_files(napi_env env, napi_value exports)
{
    export_function(env, exports, "memoryFile", memory_file);
    export_function(env, exports, "exchangeFiles", exchange_files);
    export_function(env, exports, "rangeLocked", range_locked);
    export_function(env, exports, "peerPid", peer_pid);
    export_function(env, exports, "sendDatagram", send_datagram);
    export_function(env, exports, "clockSynchronized", clock_synchronized);
}
