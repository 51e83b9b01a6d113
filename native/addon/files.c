/* Of files and sockets what Node does not offer: memfd_create(2), renameat2(2), SO_PEERCRED (unix(7)). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>

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

void subpage_register_files(napi_env env, napi_value exports)
{
    export_function(env, exports, "memoryFile", memory_file);
    export_function(env, exports, "exchangeFiles", exchange_files);
    export_function(env, exports, "peerPid", peer_pid);
}
