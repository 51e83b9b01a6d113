/* What the shim is told: variables of the environment, which children of QEMU do not get. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "environment.h"

static const char *const variables[] = {"SUBPAGE_RAM", "SUBPAGE_SHIM_STATUS", "SUBPAGE_LEASE", "SUBPAGE_GUARD_QMP",
                                        "SUBPAGE_FORGET", "SUBPAGE_AUX_RAM", "SUBPAGE_FRESH_RAM",
                                        "SUBPAGE_HELD", "SUBPAGE_DISK_MAPS", "SUBPAGE_RAM_BACKENDS"};

static char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? strdup(value) : NULL;
}

/* Removes this library from LD_PRELOAD and leaves what others preload. */
static void leave_preload(void)
{
    Dl_info self;
    const char *list = getenv("LD_PRELOAD");
    if (!list || !dladdr((void *)&leave_preload, &self))
        return;
    char *copy = strdup(list), *kept = calloc(1, strlen(list) + 1);
    if (copy && kept) {
        char *rest = copy, *name;
        while ((name = strsep(&rest, ": ")) != NULL) {
            if (!*name || strcmp(name, self.dli_fname) == 0)
                continue;
            if (*kept)
                strcat(kept, ":");
            strcat(kept, name);
        }
        if (*kept)
            setenv("LD_PRELOAD", kept, 1);
        else
            unsetenv("LD_PRELOAD");
    }
    free(copy);
    free(kept);
}

void environment_leave(void)
{
    for (size_t n = 0; n < sizeof variables / sizeof *variables; n++)
        unsetenv(variables[n]);
    leave_preload();
}

void environment_read(struct environment *environment)
{
    *environment = (struct environment){
        .ram = variable("SUBPAGE_RAM"),
        .status = variable("SUBPAGE_SHIM_STATUS"),
        .lease = variable("SUBPAGE_LEASE"),
        .guard_qmp = variable("SUBPAGE_GUARD_QMP"),
        .forget = variable("SUBPAGE_FORGET"),
        .aux_ram = variable("SUBPAGE_AUX_RAM"),
        .ram_backends = variable("SUBPAGE_RAM_BACKENDS"),
        .disk_maps = variable("SUBPAGE_DISK_MAPS"),
        .fresh_ram = variable("SUBPAGE_FRESH_RAM"),
        .held = variable("SUBPAGE_HELD"),
    };
}
