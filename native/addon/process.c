/*
 * Processes that are not our children: a pidfd names one process for good, where a pid may be reused (pidfd_open(2)).
 * The descriptor is closed with fs.closeSync.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "addon.h"

/* pidfdOpen(pid) -> descriptor. Throws with code ESRCH when there is no such process. */
static napi_value pidfd_open_call(napi_env env, napi_callback_info info)
{
    napi_value argv[1], result;
    uint64_t pid;
    if (!subpage_args(env, info, 1, argv) || !subpage_get_uint(env, argv[0], INT32_MAX, "pid", &pid))
        return NULL;
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (fd < 0)
        return throw_errno(env, "pidfd_open");
    napi_create_int32(env, fd, &result);
    return result;
}

/* pidfdExited(fd) -> true when the process runs no more, even if nobody has reaped it. */
static napi_value pidfd_exited(napi_env env, napi_callback_info info)
{
    napi_value argv[1], result;
    uint64_t fd;
    if (!subpage_args(env, info, 1, argv) || !subpage_get_uint(env, argv[0], INT32_MAX, "fd", &fd))
        return NULL;
    struct pollfd ended = {.fd = (int)fd, .events = POLLIN};
    int ready = poll(&ended, 1, 0);
    if (ready < 0 || (ended.revents & POLLNVAL)) {
        if (ready >= 0)
            errno = EBADF;
        return throw_errno(env, "poll on a pidfd");
    }
    napi_get_boolean(env, ready > 0, &result);
    return result;
}

void subpage_register_process(napi_env env, napi_value exports)
{
    export_function(env, exports, "pidfdOpen", pidfd_open_call);
    export_function(env, exports, "pidfdExited", pidfd_exited);
}
