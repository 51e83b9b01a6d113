/* The constants of the NBD protocol that the server uses (doc/proto.md of the NetworkBlockDevice project), and its byte order. */
#ifndef SUBPAGE_DISK_NBD_PROTOCOL_H
#define SUBPAGE_DISK_NBD_PROTOCOL_H

#include <stdint.h>

#include "../core/bytes.h"

#define NBD_MAGIC UINT64_C(0x4e42444d41474943)
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054)
#define NBD_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC UINT32_C(0x25609513)
#define NBD_REPLY_MAGIC UINT32_C(0x67446698)

enum { NBD_OPTION_BYTES = 16, NBD_OPTION_REPLY_BYTES = 20, NBD_REQUEST_BYTES = 28, NBD_REPLY_BYTES = 16 };
/* A name, and the data of an option: a name and what comes with it. */
enum { NBD_NAME_BYTES_MAX = 4096, NBD_OPTION_BYTES_MAX = 16384 };
enum { NBD_FLAG_FIXED_NEWSTYLE = 1, NBD_FLAG_NO_ZEROES = 2 };
/* The flags are there; flushes and forced writes are understood. */
enum { NBD_TRANSMISSION_FLAGS = 1 | 4 | 8 };
enum { NBD_OPT_EXPORT_NAME = 1, NBD_OPT_ABORT = 2, NBD_OPT_LIST = 3, NBD_OPT_INFO = 6, NBD_OPT_GO = 7 };
enum { NBD_INFO_EXPORT = 0, NBD_INFO_BLOCK_SIZE = 3 };
enum { NBD_CMD_READ = 0, NBD_CMD_WRITE = 1, NBD_CMD_DISC = 2, NBD_CMD_FLUSH = 3 };
enum { NBD_CMD_FLAG_FUA = 1 };
enum { NBD_EPERM = 1, NBD_ENOMEM = 12, NBD_EINVAL = 22, NBD_ENOSPC = 28 };

#define NBD_REP_ACK UINT32_C(1)
#define NBD_REP_SERVER UINT32_C(2)
#define NBD_REP_INFO UINT32_C(3)
#define NBD_REP_ERR_UNSUP UINT32_C(0x80000001)
#define NBD_REP_ERR_INVALID UINT32_C(0x80000003)

struct nbd_request {
    uint16_t flags, type;
    uint64_t cookie, offset; /* the cookie as it came */
    uint32_t length;
};

static inline uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t get32(const uint8_t *p)
{
    return __builtin_bswap32(load32(p));
}

static inline uint64_t get64(const uint8_t *p)
{
    return __builtin_bswap64(load64(p));
}

static inline void put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void put32(uint8_t *p, uint32_t value)
{
    store32(p, __builtin_bswap32(value));
}

static inline void put64(uint8_t *p, uint64_t value)
{
    store64(p, __builtin_bswap64(value));
}

#endif
