/*
 * The TCG plugin: sees every load and store of the guest's CPUs and notes them in a file (share.h).
 *
 *   -plugin plugin.so,share=FILE,ram=BYTES,low=BYTES,parts=N
 *
 *   share  the file to make        ram    size of the guest's RAM
 *   low    how much of it lies below 4 GiB; the rest begins at 4 GiB
 *   parts  what to note, a sum of enum share_part
 *
 * It notes nothing, and costs nothing, until a reader asks for it in the share. Then all translated code is thrown away
 * (qemu_plugin_reset), when a vCPU next wakes up: within a tick of an idle guest, or at QMP `cont`. When the reader has
 * enough, QEMU 9 and later goes back to code without us in the same way; 7.2 goes on calling us for nothing.
 *
 * What it cannot see: memory that devices write (DMA), that QEMU itself writes for the CPU (accessed and dirty bits in
 * the guest's page tables), and instructions that are fetched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "note.h"
#include "qemu.h"

#define ABOVE_4G UINT64_C(0x100000000)

int qemu_plugin_version = 1;

static struct share share;
static uint64_t ram_bytes, low_bytes;
/* Whether QEMU names addresses of the guest, or offsets into its RAM. */
static bool guest_physical;

/*
 * QEMU reads the version after loading us. 7.2 takes 1 at most and 9.0 and later 2 at least; what we use is alike in both,
 * but for one thing: the older "physical address" of RAM is its place among QEMU's RAM blocks, of which ours is the first.
 */
__attribute__((constructor)) static void choose_version(void)
{
    guest_physical = dlsym(RTLD_DEFAULT, "qemu_plugin_num_vcpus") != NULL;
    qemu_plugin_version = guest_physical ? 2 : 1;
}

/* Offset in the RAM file; beyond it for what is no RAM. */
static uint64_t ram_offset(uint64_t address)
{
    if (!guest_physical)
        return address;
    if (address < low_bytes)
        return address;
    return address < ABOVE_4G ? UINT64_MAX : address - ABOVE_4G + low_bytes;
}

/* An access within one page. */
static void note(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, unsigned bytes)
{
    struct qemu_plugin_hwaddr *address = qemu_plugin_get_hwaddr(info, vaddr);
    if (!address) {
        atomic_fetch_add(&share.header->unknown, 1);
        return;
    }
    if (qemu_plugin_hwaddr_is_io(address))
        return;
    uint64_t offset = ram_offset(qemu_plugin_hwaddr_phys_addr(address));
    if (offset >= ram_bytes)
        atomic_fetch_add(&share.header->outside, 1);
    else
        share_note(&share, vcpu, offset, bytes, qemu_plugin_mem_is_store(info));
}

static void on_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data)
{
    (void)data;
    if (!atomic_load_explicit(&share.header->wanted, memory_order_relaxed))
        return;
    unsigned bytes = 1u << qemu_plugin_mem_size_shift(info), room = 4096u - vaddr % 4096u;
    note(vcpu, info, vaddr, bytes < room ? bytes : room);
    if (bytes > room)
        note(vcpu, info, vaddr + room, bytes - room);
}

/*
 * Up to 7.2 QEMU keeps a pointer to the callbacks of an instruction that leaves the translated code in its middle, and
 * follows it after it has freed them with that code (mended in 8.0). `hlt` and `pause` do so, and access no memory.
 */
static bool leaves(const struct qemu_plugin_insn *insn)
{
    if (guest_physical)
        return false;
    const uint8_t *bytes = qemu_plugin_insn_data(insn);
    size_t size = qemu_plugin_insn_size(insn);
    return (size == 1 && bytes[0] == 0xf4) || (size == 2 && bytes[0] == 0xf3 && bytes[1] == 0x90);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    enum qemu_plugin_mem_rw rw = share.counts || share.read ? QEMU_PLUGIN_MEM_RW : QEMU_PLUGIN_MEM_W;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        if (!leaves(insn))
            qemu_plugin_register_vcpu_mem_cb(insn, on_access, QEMU_PLUGIN_CB_NO_REGS, rw, NULL);
    }
}

static void on_resume(qemu_plugin_id_t id, unsigned vcpu);

/*
 * When all translated code is gone, and all callbacks with it. A reader sets `wanted` and then looks at `active`; we do it
 * the other way round, so one of the two sees what the other has done.
 */
static void begin(qemu_plugin_id_t id)
{
    atomic_store(&share.header->active, 0);
    if (atomic_load(&share.header->wanted)) {
        qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
        atomic_store(&share.header->active, 1);
    }
    qemu_plugin_register_vcpu_resume_cb(id, on_resume);
}

/* On 7.2 there is no way back: `leaves` says why. */
static void on_resume(qemu_plugin_id_t id, unsigned vcpu)
{
    (void)vcpu;
    uint32_t wanted = atomic_load(&share.header->wanted), active = atomic_load(&share.header->active);
    if (wanted != active && (wanted || guest_physical))
        qemu_plugin_reset(id, begin);
}

static bool read_number(const char *argument, const char *name, uint64_t *number)
{
    size_t length = strlen(name);
    if (strncmp(argument, name, length) != 0 || argument[length] != '=')
        return false;
    char *end;
    errno = 0;
    *number = strtoull(argument + length + 1, &end, 10);
    return errno == 0 && *end == 0 && argument[length + 1] != 0;
}

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv)
{
    const char *path = NULL;
    uint64_t parts = 0;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "share=", 6) == 0)
            path = argv[i] + 6;
        else if (!read_number(argv[i], "ram", &ram_bytes) && !read_number(argv[i], "low", &low_bytes) &&
                 !read_number(argv[i], "parts", &parts)) {
            fprintf(stderr, "subpage plugin: cannot read the argument %s\n", argv[i]);
            return -1;
        }
    }
    if (!info->system_emulation || !path || ram_bytes == 0 || ram_bytes % 4096 != 0 || low_bytes == 0 || parts == 0 || parts > 15) {
        fprintf(stderr, "subpage plugin: needs a whole machine, share=, ram=, low=, parts=\n");
        return -1;
    }
    if (!share_create(&share, path, (uint32_t)parts, ram_bytes / 4096)) {
        fprintf(stderr, "subpage plugin: cannot make %s: %s\n", path, strerror(errno));
        return -1;
    }
    qemu_plugin_register_vcpu_resume_cb(id, on_resume);
    return 0;
}
