/* Messages to subpage, and what every part of the holder needs: arrays that grow, the clock. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "holder.h"

void *grown(void *array, size_t count, size_t *room, size_t element_bytes)
{
    if (count < *room)
        return array;
    SP_INVARIANT(count == *room && *room <= SIZE_MAX / 2 / element_bytes);
    *room = *room ? 2 * *room : 64;
    array = realloc(array, *room * element_bytes);
    if (!array) {
        fputs("subpage holder: out of memory\n", stderr);
        _exit(1); /* the kernel lets the target go */
    }
    return array;
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void message_bytes(struct message *message, const void *bytes, size_t length)
{
    while (message->room < message->length + length)
        message->bytes = grown(message->bytes, message->room, &message->room, 1);
    SP_INVARIANT(message->length <= message->room && length <= message->room - message->length);
    if (length > 0)
        memcpy(message->bytes + message->length, bytes, length);
    message->length += length;
}

void message_begin(struct message *message, enum message_kind kind)
{
    uint8_t first = (uint8_t)kind;
    message->length = 0;
    message_bytes(message, "\0\0\0\0", 4);
    message_bytes(message, &first, 1);
}

void message_u64(struct message *message, uint64_t value)
{
    message_bytes(message, &value, sizeof value);
}

void message_text(struct message *message, const char *text)
{
    message_u64(message, strlen(text));
    message_bytes(message, text, strlen(text));
}

bool message_send(struct message *message)
{
    /* A length that was cut to 32 bits would end the message within itself. */
    SP_INVARIANT(message->length > 4 && message->length - 4 <= UINT32_MAX);
    uint32_t length = (uint32_t)(message->length - 4);
    memcpy(message->bytes, &length, sizeof length);
    for (size_t sent = 0; sent < message->length;) {
        ssize_t wrote = send(CONTROL_FD, message->bytes + sent, message->length - sent, MSG_NOSIGNAL);
        if (wrote < 0 && errno != EINTR)
            return false;
        if (wrote > 0)
            sent += (size_t)wrote;
    }
    return true;
}
