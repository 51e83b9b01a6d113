/* Chooses the CPU path: SUBPAGE_CPU when set, else the best that the processor has. Tests switch it at run time. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

static const struct sp_kernels *chosen;

static const struct sp_kernels *best(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
        return &sp_kernels_avx2;
#endif
    return &sp_kernels_scalar;
}

bool sp_cpu_select(const char *name)
{
    const struct sp_kernels *wanted = NULL;
    if (strcmp(name, "scalar") == 0)
        wanted = &sp_kernels_scalar;
    else if (strcmp(name, "best") == 0 || strcmp(name, best()->name) == 0)
        wanted = best();
    if (!wanted)
        return false;
    /* Threads of the pool may be reading: they see the old table or the new one, and both give the same bytes. */
    __atomic_store_n(&chosen, wanted, __ATOMIC_RELEASE);
    return true;
}

const struct sp_kernels *sp_kernels_chosen(void)
{
    const struct sp_kernels *kernels = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);
    if (kernels)
        return kernels;
    const char *forced = getenv("SUBPAGE_CPU");
    /* A name that this host cannot serve is reported when the addon loads; the core itself falls back. */
    if (!forced || !sp_cpu_select(forced))
        sp_cpu_select("best");
    return __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);
}

const char *sp_cpu_path(void)
{
    return sp_kernels_chosen()->name;
}
