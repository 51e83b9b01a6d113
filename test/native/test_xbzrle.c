/* The encoder against the vector that QEMU publishes for XBZRLE, on every path. */
#include "memory.h"

/* 1001 equal bytes, 21 changed ones (three and one of them equal in between), 3074 equal bytes. */
static const uint8_t vector[] = {0xe9, 0x07, 0x0f, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09,
                                 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x03, 0x01, 0x67, 0x01, 0x01, 0x69};

int main(void)
{
    static uint8_t before[SP_PAGE_BYTES], after[SP_PAGE_BYTES];
    uint8_t out[SP_PAGE_RECORD_MAX];
    for (unsigned i = 0; i < 15; i++)
        after[1001 + i] = (uint8_t)(i + 1);
    after[1001 + 18] = 0x67;
    after[1001 + 20] = 0x69;
    static const char *const paths[] = {"scalar", "best"};
    for (unsigned path = 0; path < 2; path++) {
        CHECK(sp_cpu_select(paths[path]));
        CHECK(sp_xbzrle_encode(before, after, out) == (int)sizeof vector);
        CHECK(memcmp(out, vector, sizeof vector) == 0);
        CHECK(sp_xbzrle_encode(after, after, out) == 0);
        for (unsigned i = 0; i < SP_PAGE_BYTES; i++)
            before[i] = (uint8_t)~after[i];
        CHECK(sp_xbzrle_encode(before, after, out) == -1);
        memset(before, 0, sizeof before);
    }
    return 0;
}
