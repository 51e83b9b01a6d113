/* Reads what the QEMU plugin has noted of a guest's accesses: native/plugin/share.h, native/core/take.h. */
#include "../plugin/share.h"

#include "../core/take.h"
#include "addon.h"

/* `units` things of `bits` bits each from `offset` of a writable region; NULL with an exception pending when outside. */
static void *part_of(napi_env env, napi_value region_value, napi_value offset_value, napi_value units_value,
                     unsigned bits, uint64_t *units)
{
    uint64_t offset;
    struct subpage_region *region = subpage_region_get(env, region_value, true);
    if (!region || !subpage_get_uint(env, offset_value, region->bytes, "offset", &offset) ||
        !subpage_get_uint(env, units_value, UINT32_MAX, "the number of pages", units))
        return NULL;
    if (offset % 8 == 0 && offset + (*units * bits + 63) / 64 * 8 <= region->bytes)
        return region->address + offset;
    napi_throw_type_error(env, NULL, "a part outside the share");
    return NULL;
}

/* The common form of findWords and takeBits: (region, offset, pages, from, pairs, results) -> runs; results[0]: next. */
static napi_value runs_of(napi_env env, napi_callback_info info, bool take)
{
    napi_value args[6], made_value;
    uint64_t pages, from, next;
    uint32_t *pairs;
    size_t length;
    double *results;
    if (!subpage_args(env, info, 6, args))
        return NULL;
    void *part = part_of(env, args[0], args[1], args[2], take ? 1 : 64, &pages);
    if (!part || !subpage_get_uint(env, args[3], pages, "from", &from) ||
        !subpage_get_u32s(env, args[4], "pairs", &pairs, &length) ||
        !subpage_get_results(env, args[5], 1, &results))
        return NULL;
    if (length / 2 < SP_TAKE_RUNS_MIN || (take && from % 64 != 0 && from != pages)) {
        napi_throw_type_error(env, NULL, "pairs too short, or a start within a word");
        return NULL;
    }
    struct sp_run *runs = (struct sp_run *)pairs;
    size_t made = take ? sp_take_bits(part, pages, from, runs, length / 2, &next)
                       : sp_find_words(part, pages, from, runs, length / 2, &next);
    results[0] = (double)next;
    return napi_create_double(env, (double)made, &made_value) == napi_ok ? made_value : NULL;
}

static napi_value find_words(napi_env env, napi_callback_info info)
{
    return runs_of(env, info, false);
}

static napi_value take_bits(napi_env env, napi_callback_info info)
{
    return runs_of(env, info, true);
}

/* takeWords(region, offset, pages, pairs, runs, maps: Uint32Array): two numbers a page, low half first */
static napi_value take_words(napi_env env, napi_callback_info info)
{
    napi_value args[6];
    uint64_t pages, total = 0;
    const struct sp_run *runs;
    size_t run_count, length;
    uint32_t *maps;
    if (!subpage_args(env, info, 6, args))
        return NULL;
    _Atomic uint64_t *words = part_of(env, args[0], args[1], args[2], 64, &pages);
    if (!words || !subpage_get_runs(env, args[3], args[4], &runs, &run_count) ||
        !subpage_get_u32s(env, args[5], "maps", &maps, &length))
        return NULL;
    for (size_t run = 0; run < run_count; run++)
        total += runs[run].count;
    if (length < 2 * total || (uintptr_t)maps % 8 != 0 ||
        !sp_take_words(words, pages, runs, run_count, (uint64_t *)maps))
        napi_throw_type_error(env, NULL, "no room for so many maps, or a run outside the memory");
    return NULL;
}

/* takeCounts(region, offset, pages, into: Uint8Array of 2 bytes a page) */
static napi_value take_counts(napi_env env, napi_callback_info info)
{
    napi_value args[4];
    uint64_t pages;
    uint8_t *into;
    size_t bytes;
    if (!subpage_args(env, info, 4, args))
        return NULL;
    _Atomic uint64_t *words = part_of(env, args[0], args[1], args[2], 16, &pages);
    if (!words || !subpage_get_bytes(env, args[3], "into", &into, &bytes))
        return NULL;
    if (bytes < 2 * pages || (uintptr_t)into % 2 != 0)
        napi_throw_type_error(env, NULL, "no room for so many counts");
    else
        sp_take_counts(words, pages, (uint16_t *)into);
    return NULL;
}

/* pluginLayout() -> what lab/src/plugin/layout.ts declares too. */
static napi_value layout(napi_env env, napi_callback_info info)
{
    (void)info;
    static const struct {
        const char *name;
        uint32_t value;
    } numbers[] = {
        {"format", SHARE_FORMAT},
        {"countMax", SHARE_COUNT_MAX},
        {"vcpuCountMax", SHARE_VCPU_COUNT_MAX},
        {"logSizes", SHARE_LOG_SIZES},
        {"logEntriesMin", SHARE_LOG_ENTRIES_MIN},
        {"lines", SHARE_LINES},
        {"pml", SHARE_PML},
        {"prl", SHARE_PRL},
        {"accesses", SHARE_ACCESSES},
        {"magicAt", offsetof(struct share_header, magic)},
        {"formatAt", offsetof(struct share_header, format)},
        {"partsAt", offsetof(struct share_header, parts)},
        {"pagesAt", offsetof(struct share_header, pages)},
        {"bytesAt", offsetof(struct share_header, bytes)},
        {"vcpusOffsetAt", offsetof(struct share_header, vcpus_offset)},
        {"linesOffsetAt", offsetof(struct share_header, lines_offset)},
        {"dirtyOffsetAt", offsetof(struct share_header, dirty_offset)},
        {"countsOffsetAt", offsetof(struct share_header, counts_offset)},
        {"readOffsetAt", offsetof(struct share_header, read_offset)},
        {"storedOffsetAt", offsetof(struct share_header, stored_offset)},
        {"tlbEntriesAt", offsetof(struct share_header, tlb_entries)},
        {"tlbGenerationAt", offsetof(struct share_header, tlb_generation)},
        {"wantedAt", offsetof(struct share_header, wanted)},
        {"activeAt", offsetof(struct share_header, active)},
        {"outsideAt", offsetof(struct share_header, outside)},
        {"unknownAt", offsetof(struct share_header, unknown)},
        {"headerBytes", sizeof(struct share_header)},
        {"vcpuBytes", sizeof(struct share_vcpu)},
        {"pmlAt", offsetof(struct share_vcpu, pml)},
        {"prlAt", offsetof(struct share_vcpu, prl)},
        {"loggedAt", offsetof(struct share_log, logged)},
        {"fullAt", offsetof(struct share_log, full)},
        {"leftAt", offsetof(struct share_log, left)},
    };
    napi_value result, number;
    if (napi_create_object(env, &result) != napi_ok)
        return NULL;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (napi_create_uint32(env, numbers[i].value, &number) != napi_ok ||
            napi_set_named_property(env, result, numbers[i].name, number) != napi_ok)
            return NULL;
    return result;
}

void subpage_register_plugin(napi_env env, napi_value exports)
{
    export_function(env, exports, "pluginLayout", layout);
    export_function(env, exports, "pluginFindWords", find_words);
    export_function(env, exports, "pluginTakeWords", take_words);
    export_function(env, exports, "pluginTakeBits", take_bits);
    export_function(env, exports, "pluginTakeCounts", take_counts);
}
