/** Whether this kernel has a zero page, as tests of the recorder must know. */
import { execFileSync } from 'node:child_process'

const probe = `
import ctypes, mmap, struct
pages = mmap.mmap(-1, 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
pages[0], pages[4096]
at = ctypes.addressof(ctypes.c_char.from_buffer(pages))
pagemap = open('/proc/self/pagemap', 'rb')
pagemap.seek(at // 4096 * 8)
one, other = struct.unpack('QQ', pagemap.read(16))
print(one % 2**55 == other % 2**55)`

/**
 * A kernel without a zero page fills what is only read: a write of zeros to memory that holds none changes nothing then, and cannot be
 * told. Two pages that were read are one where there is a zero page; who may not see where they are takes it for there.
 */
export const zeroPage = execFileSync('python3', ['-c', probe], { encoding: 'utf8' }).trim() === 'True'
