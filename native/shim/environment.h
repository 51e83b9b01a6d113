/*
 * The environment of the shim, read once, and removed when QEMU maps its RAM, so that children of QEMU are not affected. Until then a
 * script that starts QEMU hands it on. Each is NULL when it is not set, or empty.
 */
#ifndef SUBPAGE_SHIM_ENVIRONMENT_H
#define SUBPAGE_SHIM_ENVIRONMENT_H

struct environment {
    /* SUBPAGE_RAM: path of the file that holds the guest's RAM; shared mappings of it are watched. */
    char *ram;
    /* SUBPAGE_SHIM_STATUS: path of the status file to write (JSON, replaced by rename, mode 0600). */
    char *status;
    /* SUBPAGE_LEASE: path of the lease file (lease.h): the fence heeds it; the guard runs when the next is set too. */
    char *lease;
    /* SUBPAGE_GUARD_QMP: unix socket of a QMP monitor that only the guard uses. */
    char *guard_qmp;
    /* SUBPAGE_FORGET: path of the file through which the agent has accesses forgotten (forget.h). */
    char *forget;
    /* SUBPAGE_AUX_RAM: `on`: memory that QEMU allocates beside the RAM goes into the RAM file too (aux.c). */
    char *aux_ram;
    /*
     * SUBPAGE_RAM_BACKENDS: bytes of each memory backend, with commas between: QEMU allocates them one by one, and the RAM file has
     * them one behind the other (backends.c).
     */
    char *ram_backends;
    /* SUBPAGE_DISK_MAPS: paths of maps of disks, one a line, in which the chunks that are written are marked (written.h). */
    char *disk_maps;
    /*
     * SUBPAGE_FRESH_RAM: bytes: the files above are made anew, the RAM file of this size (fresh.c). An exception to the shim's rule:
     * without room for its RAM QEMU is ended before it begins.
     */
    char *fresh_ram;
    /* SUBPAGE_HELD: path of a file that says why this guest must not be started here, when there is one: the other exception. */
    char *held;
};

void environment_read(struct environment *environment);

/* Not before this is known to be QEMU: a script that starts it has the same environment. */
void environment_leave(void);

#endif
