/* Records of a disk, any bytes: what is taken for good says the same to the writer of files as to a plain loop; the rest is refused whole. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "journal_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static uint8_t model[MODEL_DISK_BYTES], disk[MODEL_DISK_BYTES];
    static int fd = -1;
    uint64_t count;
    const char *problem = records_check(data, bytes, MODEL_DISK_BYTES, &count);
    if (problem)
        return 0;
    if (fd < 0)
        fd = memfd_create("disk", MFD_CLOEXEC);
    memset(model, 5, sizeof model);
    MODEL_HOLDS(pwrite(fd, model, sizeof model, 0) == sizeof model);
    model_apply(model, data, bytes);
    for (int times = 0; times < 2; times++) {
        MODEL_HOLDS(records_apply(fd, data, bytes) == 0);
        MODEL_HOLDS(pread(fd, disk, sizeof disk, 0) == sizeof disk && memcmp(disk, model, sizeof disk) == 0);
    }
    MODEL_HOLDS(lseek(fd, 0, SEEK_END) == MODEL_DISK_BYTES);
    return 0;
}
