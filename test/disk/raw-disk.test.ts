/** A standby's copy of a disk: what is written to it is soon on its way to the medium, so that a takeover has little to wait for. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { RawDisk } from '../../src/disk/raw-disk.ts'
import { recordHeaderBytes, recordKind } from '../../src/disk/records.ts'
import { pageBytes } from '../../src/memory/page.ts'

const bytes = 4 * 2 ** 20

/** Pages of a file that its medium does not have, as the kernel marks them (bits DIRTY and WRITEBACK of /proc/kpageflags). */
const dirtyPages = `
import mmap, struct, sys
with open(sys.argv[1], 'r+b') as file, open('/proc/self/pagemap', 'rb') as map, open('/proc/kpageflags', 'rb') as flags:
    memory = mmap.mmap(file.fileno(), 0)
    dirty = 0
    address = int(next(line for line in open('/proc/self/maps') if sys.argv[1] in line).split('-')[0], 16)
    for page in range(len(memory) // 4096):
        memory[page * 4096]
        map.seek((address // 4096 + page) * 8)
        frame = struct.unpack('Q', map.read(8))[0] & (1 << 55) - 1
        flags.seek(frame * 8)
        dirty += bool(struct.unpack('Q', flags.read(8))[0] & (1 << 4 | 1 << 8))
    print(dirty)
`

function record(offset: number, length: number): Buffer {
  const payload = Buffer.alloc(recordHeaderBytes + length, 1)
  payload.writeBigUInt64LE(BigInt(offset), 0)
  payload.writeUInt32LE(length, 8)
  payload.writeUInt32LE(recordKind.data, 12)
  return payload
}

test('a copy that was let go of is written to no more: its descriptor may be another file', async () => {
  const directory = mkdtempSync('/var/tmp/subpage-raw-disk-')
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'disk.raw')
  writeFileSync(path, Buffer.alloc(bytes))
  const disk = new RawDisk(path, bytes, true)
  await disk.close()
  await expect(disk.apply(record(0, pageBytes), 0)).rejects.toMatchObject({ code: 'DISK_FAILED' })
})

test('what is applied reaches the medium without being asked for', async () => {
  // Not in /tmp, which may be memory.
  const directory = mkdtempSync('/var/tmp/subpage-raw-disk-')
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'disk.raw')
  writeFileSync(path, '')
  truncateSync(path, bytes)
  const disk = new RawDisk(path, bytes, true)
  onTestFinished(() => disk.close())
  const dirty = () => Number(execFileSync('python3', ['-c', dirtyPages, path], { encoding: 'utf8' }))
  for (const offset of [0, bytes / 2]) {
    await disk.apply(record(offset, 64 * pageBytes), 0)
    // The kernel would take half a minute.
    await expect.poll(dirty, { timeout: 10_000 }).toBe(0)
  }
})
