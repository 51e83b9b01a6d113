/* Packing and patching of pages: what is packed comes back, what is damaged is refused or stays within bounds. */
#include "memory.h"

#include "../../native/core/pack.h"

static uint64_t seed = 11;

enum kind { ZERO, POINTERS, TEXT, NUMBERS, NOISE, HALF_NOISE, KINDS };

static void fill(uint8_t *page, enum kind kind)
{
    static const char words[] = "subpage keeps a running virtual machine alive on a second host ";
    memset(page, 0, SP_PAGE_BYTES);
    for (unsigned i = 0; i < SP_PAGE_BYTES / 8; i++) {
        uint64_t random = next_random(&seed), word = 0;
        if (kind == POINTERS)
            word = random % 3 ? 0xffff888000000000u | (random & 0x3fff8) : 0;
        else if (kind == NUMBERS)
            word = random & 0xff;
        else if (kind == NOISE || (kind == HALF_NOISE && i % 2))
            word = random;
        else if (kind == TEXT)
            memcpy(&word, words + random % (sizeof words - 8), 8);
        memcpy(page + 8 * i, &word, 8);
    }
}

/* The last byte of the packed form lies before a page that must not be read. */
static bool unpack_guarded(struct sp_packer *packer, const uint8_t *packed, size_t bytes, uint8_t *page)
{
    uint8_t *exact = guarded(bytes);
    memcpy(exact, packed, bytes);
    bool done = sp_unpack(packer, exact, bytes, page);
    free_guarded(exact, bytes);
    return done;
}

static void test_round_trips(struct sp_packer *packer)
{
    uint8_t page[SP_PAGE_BYTES], back[SP_PAGE_BYTES], packed[SP_PACK_ROOM];
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < 200; i++) {
            fill(page, (enum kind)kind);
            for (int packing = 0; packing < SP_PACKING_COUNT; packing++) {
                size_t bytes = sp_pack_as(packer, (enum sp_packing)packing, page, packed);
                CHECK(bytes > 0 && bytes <= SP_PACK_ROOM);
                CHECK(unpack_guarded(packer, packed, bytes, back));
                CHECK(memcmp(page, back, SP_PAGE_BYTES) == 0);
                CHECK(!unpack_guarded(packer, packed, bytes - 1, back));
            }
            size_t bytes = sp_pack(packer, page, packed);
            CHECK((bytes == 0) == (kind == NOISE));
            if (bytes) {
                CHECK(bytes <= SP_PACKED_BYTES_MAX);
                CHECK(unpack_guarded(packer, packed, bytes, back) && memcmp(page, back, SP_PAGE_BYTES) == 0);
            }
        }
}

static void test_words_know_pointers(struct sp_packer *packer)
{
    uint8_t page[SP_PAGE_BYTES], packed[SP_PACK_ROOM];
    fill(page, POINTERS);
    CHECK(sp_pack_as(packer, SP_PACKING_WORDS, page, packed) < SP_PAGE_BYTES * 6 / 10);
    fill(page, ZERO);
    CHECK(sp_pack_as(packer, SP_PACKING_WORDS, page, packed) == 257);
}

/* Damage: no crash, no write outside the page. */
static void test_damage(struct sp_packer *packer)
{
    uint8_t page[SP_PAGE_BYTES], packed[SP_PACK_ROOM];
    uint8_t *back = guarded(SP_PAGE_BYTES);
    for (int i = 0; i < 5000; i++) {
        fill(page, (enum kind)(i % KINDS));
        size_t bytes = sp_pack_as(packer, (enum sp_packing)(i % SP_PACKING_COUNT), page, packed);
        for (int flip = 0; flip < 3; flip++)
            packed[next_random(&seed) % bytes] ^= (uint8_t)(1u << next_random(&seed) % 8);
        unpack_guarded(packer, packed, bytes, back);
    }
    CHECK(!sp_unpack(packer, packed, 0, back));
    packed[0] = SP_PACKING_COUNT;
    CHECK(!sp_unpack(packer, packed, 300, back));
    free_guarded(back, SP_PAGE_BYTES);
}

static void test_patches(void)
{
    uint8_t reference[SP_PAGE_BYTES], page[SP_PAGE_BYTES], patch[SP_PAGE_RECORD_MAX + SP_DELTA_PAD_BYTES];
    fill(reference, NOISE);
    CHECK(sp_patch_make(reference, reference, patch) == 0);
    fill(page, NOISE);
    CHECK(sp_patch_make(page, reference, patch) == 0);
    for (int i = 0; i < 2000; i++) {
        memcpy(page, reference, SP_PAGE_BYTES);
        unsigned writes = (unsigned)(next_random(&seed) % 40) + 1;
        for (unsigned j = 0; j < writes; j++)
            page[next_random(&seed) % SP_PAGE_BYTES] ^= 0x5a;
        uint8_t back[SP_PAGE_BYTES];
        size_t bytes = sp_patch_make(page, reference, patch);
        if (bytes == 0) {
            CHECK(memcmp(page, reference, SP_PAGE_BYTES) == 0);
            continue;
        }
        CHECK(bytes <= SP_PATCH_BYTES_MAX);
        memset(patch + bytes, 0, SP_DELTA_PAD_BYTES);
        memcpy(back, reference, SP_PAGE_BYTES);
        CHECK(sp_patch_apply(back, patch, bytes) && memcmp(back, page, SP_PAGE_BYTES) == 0);
        CHECK(!sp_patch_apply(back, patch, bytes - 1));
    }
}

int main(void)
{
    struct sp_packer *packer = sp_packer_new();
    CHECK(packer);
    test_round_trips(packer);
    test_words_know_pointers(packer);
    test_damage(packer);
    static const char *const paths[] = {"scalar", "best"};
    for (unsigned path = 0; path < 2; path++) {
        CHECK(sp_cpu_select(paths[path]));
        test_patches();
    }
    sp_packer_free(packer);
    return 0;
}
