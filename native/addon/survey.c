/* The survey of memories (native/core/survey.h), in the thread pool. */
#include <stdlib.h>

#include "addon.h"

#include "../core/invariant.h"
#include "../core/survey.h"

enum {
    SURVEY_ARGS = 8,
    EXTENT_FIELDS = 4, /* descriptor or -1, image, offset, pages */
    IMAGE_RESULTS = 8,
    BLOCK_RESULTS = 7,
    GLOBAL_RESULTS = 1 + SP_PACKING_COUNT + 2 + 3 + SP_SURVEY_BLOCK_SIZES * BLOCK_RESULTS,
    IMAGES_MAX = 1 << 16,
    EXTENTS_MAX = 1 << 24,
};

struct survey_job {
    struct subpage_job job;
    struct sp_survey survey;
    double *results;
    int error;
};

static void survey_free(struct survey_job *job)
{
    free(job->survey.extents);
    free(job->survey.images);
}

static void put(double **to, uint64_t value)
{
    *(*to)++ = (double)value;
}

static void put_results(const struct sp_survey *survey, double *to)
{
    const double *end = to + survey->image_count * IMAGE_RESULTS + GLOBAL_RESULTS;
    for (uint32_t i = 0; i < survey->image_count; i++) {
        const struct sp_survey_counts *counts = &survey->images[i];
        put(&to, counts->pages);
        put(&to, counts->zero);
        put(&to, counts->filled);
        put(&to, counts->shared);
        put(&to, counts->patched);
        put(&to, counts->packed);
        put(&to, counts->patch_bytes);
        put(&to, counts->packed_bytes);
    }
    put(&to, survey->references);
    for (unsigned i = 0; i < SP_PACKING_COUNT; i++)
        put(&to, survey->packings[i]);
    put(&to, survey->passes);
    put(&to, survey->patch_passes);
    put(&to, survey->share_ns);
    put(&to, survey->patch_ns);
    put(&to, survey->pack_ns);
    for (unsigned i = 0; i < SP_SURVEY_BLOCK_SIZES; i++) {
        put(&to, survey->blocks[i].blocks);
        put(&to, survey->blocks[i].zero);
        put(&to, survey->blocks[i].sampled);
        put(&to, survey->blocks[i].distinct);
        put(&to, survey->blocks[i].packed_bytes);
        put(&to, survey->blocks[i].with_any_bytes);
        put(&to, survey->blocks[i].with_whole_bytes);
    }
    /* The caller's room was checked against these two numbers. */
    SP_INVARIANT(to == end);
}

static void survey_execute(struct subpage_job *base)
{
    struct survey_job *job = (struct survey_job *)base;
    job->error = sp_survey_run(&job->survey);
    if (job->error == 0)
        put_results(&job->survey, job->results);
    survey_free(job);
}

static napi_value survey_finish(napi_env env, struct subpage_job *base)
{
    napi_value error;
    return napi_create_int32(env, ((struct survey_job *)base)->error, &error) == napi_ok ? error : NULL;
}

static bool read_extents(napi_env env, napi_value value, uint64_t count, struct survey_job *job)
{
    double *fields;
    if (!subpage_get_results(env, value, count * EXTENT_FIELDS, &fields))
        return false;
    struct sp_extent *extents = calloc(count ? count : 1, sizeof *extents);
    job->survey.extents = extents;
    job->survey.extent_count = (size_t)count;
    job->survey.images = calloc(job->survey.image_count, sizeof *job->survey.images);
    if (!extents || !job->survey.images) {
        napi_throw_error(env, "ENOMEM", "out of memory");
        return false;
    }
    for (uint64_t i = 0; i < count; i++, fields += EXTENT_FIELDS) {
        if (!(fields[0] >= -1 && fields[0] < 1 << 30) || !(fields[1] >= 0 && fields[1] < job->survey.image_count) ||
            !(fields[2] >= 0 && fields[2] < 9e15) || !(fields[3] >= 0 && fields[3] < 4294967296.0)) {
            napi_throw_type_error(env, NULL, "an extent is descriptor, image, offset and pages");
            return false;
        }
        extents[i] = (struct sp_extent){.fd = (int)fields[0],
                                        .image = (uint32_t)fields[1],
                                        .offset = (uint64_t)fields[2],
                                        .pages = (uint64_t)fields[3]};
    }
    return true;
}

/*
 * survey(extents, extentCount, imageCount, shape, depth, memoryBytes, results, memory) → errno; depth 0 share, 1 patch,
 * 2 pack; extents of descriptor -1 are in `memory`
 */
static napi_value survey(napi_env env, napi_callback_info info)
{
    napi_value args[SURVEY_ARGS];
    uint64_t extents, images, depth, memory_bytes;
    uint8_t *memory;
    struct survey_job *job = NULL;
    if (!subpage_args(env, info, SURVEY_ARGS, args) || !(job = subpage_job_new(env, sizeof *job)))
        return NULL;
    if (subpage_get_uint(env, args[1], EXTENTS_MAX, "extentCount", &extents) &&
        subpage_get_uint(env, args[2], IMAGES_MAX, "imageCount", &images) &&
        subpage_get_shape(env, args[3], &job->survey.shape) && subpage_get_uint(env, args[4], 2, "depth", &depth) &&
        subpage_get_uint(env, args[5], UINT64_C(1) << 50, "memoryBytes", &memory_bytes) &&
        subpage_get_results(env, args[6], images * IMAGE_RESULTS + GLOBAL_RESULTS, &job->results) &&
        subpage_get_bytes(env, args[7], "memory", &memory, &job->survey.memory_size)) {
        job->survey.memory = memory;
        job->survey.image_count = (uint32_t)images;
        job->survey.patch = depth >= 1;
        job->survey.pack = depth >= 2;
        job->survey.memory_bytes = memory_bytes;
        job->job.execute = survey_execute;
        job->job.finish = survey_finish;
        if (read_extents(env, args[0], extents, job))
            return subpage_job_start(env, &job->job, args, SURVEY_ARGS, "subpage:survey");
    }
    survey_free(job);
    subpage_job_drop(&job->job);
    return NULL;
}

void subpage_register_survey(napi_env env, napi_value exports)
{
    export_function(env, exports, "survey", survey);
}
