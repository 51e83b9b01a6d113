/* Open files that go from one process to another over a unix socket: SCM_RIGHTS of unix(7). */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../core/invariant.h"
#include "addon.h"

union control {
    struct cmsghdr header; /* for its alignment */
    char room[CMSG_SPACE(sizeof(int))];
};

/* sendDescriptor(socket, fd, mark): the other end gets an open file of its own, and with it a byte. Throws with code EAGAIN when the socket is full. */
static napi_value send_descriptor(napi_env env, napi_callback_info info)
{
    napi_value argv[3];
    uint64_t socket, fd, mark;
    if (!subpage_args(env, info, 3, argv) || !subpage_get_uint(env, argv[0], INT32_MAX, "socket", &socket) ||
        !subpage_get_uint(env, argv[1], INT32_MAX, "fd", &fd) || !subpage_get_uint(env, argv[2], 255, "mark", &mark))
        return NULL;
    uint8_t byte = (uint8_t)mark;
    int passed = (int)fd;
    union control control = {0};
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    SP_INVARIANT(rights != NULL);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(rights), &passed, sizeof passed);
    if (sendmsg((int)socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return throw_errno(env, "sendmsg of a descriptor");
    return NULL;
}

/* receiveDescriptor(socket, results) -> the descriptor, the caller's to close; results[0] is the byte. -1: nothing has come yet, -2: the other end has closed, or sent none. */
static napi_value receive_descriptor(napi_env env, napi_callback_info info)
{
    napi_value argv[2], result;
    uint64_t socket;
    double *results;
    if (!subpage_args(env, info, 2, argv) || !subpage_get_uint(env, argv[0], INT32_MAX, "socket", &socket) ||
        !subpage_get_results(env, argv[1], 1, &results))
        return NULL;
    uint8_t byte = 0;
    union control control = {0};
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    ssize_t got = recvmsg((int)socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != ECONNRESET)
        return throw_errno(env, "recvmsg of a descriptor");
    int fd = got < 0 && errno != ECONNRESET ? -1 : -2;
    if (got == 1)
        for (struct cmsghdr *rights = CMSG_FIRSTHDR(&message); rights; rights = CMSG_NXTHDR(&message, rights)) {
            if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
                continue;
            /* The control buffer has room for one. */
            SP_INVARIANT(rights->cmsg_len == CMSG_LEN(sizeof fd));
            memcpy(&fd, CMSG_DATA(rights), sizeof fd);
            results[0] = byte;
        }
    napi_create_int32(env, fd, &result);
    return result;
}

void subpage_register_descriptors(napi_env env, napi_value exports)
{
    export_function(env, exports, "sendDescriptor", send_descriptor);
    export_function(env, exports, "receiveDescriptor", receive_descriptor);
}
