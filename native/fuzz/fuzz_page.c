/* The readers of pages at rest: any bytes as a packed page and as a patch, and any page packed and read back. */
#include <stdlib.h>
#include <string.h>

#include "../core/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct sp_packer *packer;
    if (!packer)
        packer = sp_packer_new();
    uint8_t page[SP_PAGE_BYTES] = {0}, back[SP_PAGE_BYTES], packed[SP_PACK_ROOM];
    sp_unpack(packer, data, bytes, page);
    uint8_t *patch = calloc(1, bytes + SP_DELTA_PAD_BYTES);
    memcpy(patch, data, bytes);
    sp_patch_apply(page, patch, bytes);
    free(patch);
    memcpy(page, data, bytes < SP_PAGE_BYTES ? bytes : SP_PAGE_BYTES);
    for (int packing = 0; packing < SP_PACKING_COUNT; packing++) {
        size_t length = sp_pack_as(packer, (enum sp_packing)packing, page, packed);
        if (length == 0 || !sp_unpack(packer, packed, length, back) || memcmp(page, back, SP_PAGE_BYTES) != 0)
            abort();
    }
    return 0;
}
