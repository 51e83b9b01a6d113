/** The endpoint of a disk, with clients that are not ours: qemu-io, qemu-img, nbdinfo, nbdcopy. And records, written and hashed. */
import { execFile, execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { DiskEndpoint } from '../../src/disk/endpoint.ts'
import { applyDisk, checkDisk, chunkBytes, hashDisk, syncDisk } from '../../src/disk/records.ts'
import { openUnnamed } from '../../src/disk/spill-file.ts'
import { hashBlocksSync } from '../../src/memory/hash.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { openEndpoint } from './open-endpoint.ts'

const run = promisify(execFile)
const MiB = 2 ** 20

const qemuIo = (uri: string, ...commands: string[]) =>
  run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri])

function openFile(path: string, bytes: number): number {
  if (!existsSync(path)) writeFileSync(path, '')
  truncateSync(path, bytes)
  const fd = openSync(path, 'r+')
  onTestFinished(() => closeSync(fd))
  return fd
}

/** One list, applied in order. */
async function redo(endpoint: DiskEndpoint, fd: number, bytes: number, sealed: boolean, room = MiB) {
  const into = new Uint8Array(room)
  for (let used = endpoint.take(into, sealed); used > 0; used = endpoint.take(into, sealed)) {
    // Behind something else, as in a frame.
    const payload = Buffer.concat([Buffer.from('frame'), into.subarray(0, used)])
    expect(checkDisk(payload, 5, bytes)).toBeGreaterThan(0)
    await applyDisk(fd, payload, 5)
  }
}

describe('clients that are not ours', () => {
  test('qemu-io writes, misaligned and short too, and the records give the disk', async () => {
    const bytes = 8 * MiB
    const { endpoint, folder, uri } = openEndpoint(bytes)
    endpoint.record()
    await qemuIo(uri, 'write -P 1 0 4k', 'write -P 2 513 511', 'flush', 'write -P 3 1M 3M', 'write -z 2M 64k')
    await qemuIo(uri, `write -P 4 ${bytes - 512} 512`, 'write -P 5 0 512', 'write -f -P 6 4097 1')
    const expected = Buffer.alloc(bytes)
    expected
      .fill(1, 0, 4096)
      .fill(2, 513, 1024)
      .fill(3, MiB, 4 * MiB)
      .fill(0, 2 * MiB, 2 * MiB + 65536)
    expected
      .fill(4, bytes - 512)
      .fill(5, 0, 512)
      .fill(6, 4097, 4098)
    expect(endpoint.stats).toMatchObject({ connections: 2, mode: 'record', zeroBytes: 65536 })
    expect(endpoint.stats.flushes).toBeGreaterThan(0)
    const fd = openFile(join(folder, 'standby'), bytes)
    endpoint.seal()
    await redo(endpoint, fd, bytes, true)
    expect(readFileSync(join(folder, 'standby')).equals(expected)).toBe(true)
    await expect(qemuIo(uri, 'read 0 512')).rejects.toMatchObject({
      stdout: expect.stringContaining('Operation not permitted'),
    })
  })

  test('qemu-img and nbdcopy copy a disk; what the standby holds already is not recorded', async () => {
    const bytes = 4 * MiB + 8192
    const { endpoint, folder, path, uri } = openEndpoint(bytes)
    const source = join(folder, 'source')
    writeFileSync(
      source,
      Buffer.concat([Buffer.alloc(MiB, 1), Buffer.alloc(2 * MiB), Buffer.alloc(MiB + 8192, 3)]),
    )
    const fd = openFile(join(folder, 'standby'), bytes)
    endpoint.record()
    await run('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', source, uri])
    expect(endpoint.stats.zeroBytes).toBe(2 * MiB)
    await redo(endpoint, fd, bytes, false)
    expect(readFileSync(join(folder, 'standby')).equals(readFileSync(source))).toBe(true)
    await syncDisk(fd)
    endpoint.know(await hashDisk(fd, bytes))
    await run('nbdcopy', ['--allocated', source, `nbd+unix:///?socket=${path}`])
    expect(endpoint.stats).toMatchObject({ equalBytes: bytes, currentBytes: 0 })
    // One byte in each of two chunks, the last one included.
    const changed = readFileSync(source)
    changed.writeUInt8(9, chunkBytes + 17)
    changed.writeUInt8(9, bytes - 1)
    writeFileSync(source, changed)
    await run('nbdcopy', ['--allocated', source, `nbd+unix:///?socket=${path}`])
    expect(endpoint.stats.equalBytes).toBe(2 * bytes - chunkBytes - 8192)
    await redo(endpoint, fd, bytes, false)
    expect(readFileSync(join(folder, 'standby')).equals(changed)).toBe(true)
  })

  test('nbdinfo and qemu-img see the size and the limits', async () => {
    const { path, uri } = openEndpoint(3 * MiB + 512)
    const { stdout } = await run('nbdinfo', ['--json', '--no-content', `nbd+unix:///disk0?socket=${path}`])
    expect(JSON.parse(stdout).exports[0]).toMatchObject({
      'export-size': 3 * MiB + 512,
      is_read_only: false,
      can_flush: true,
      can_fua: true,
      can_trim: false,
      can_zero: false,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MiB,
    })
    expect((await run('nbdinfo', ['--size', `nbd+unix:///?socket=${path}`])).stdout.trim()).toBe(
      String(3 * MiB + 512),
    )
    expect(
      JSON.parse((await run('qemu-img', ['info', '-f', 'raw', '--output=json', uri])).stdout),
    ).toMatchObject({
      'virtual-size': 3 * MiB + 512,
    })
  })
})

test('while the journal is full a write waits; a take or `drop` frees it', async () => {
  const { endpoint, uri } = openEndpoint(8 * MiB, 2 * MiB)
  endpoint.record()
  const done = qemuIo(uri, 'write -P 1 0 1M', 'write -P 2 1M 1M', 'write -P 3 2M 1M')
  await expect.poll(() => endpoint.stats.waitingMs).toBeGreaterThan(0)
  expect(endpoint.stats.currentBytes).toBeLessThanOrEqual(2 * MiB)
  const { writes } = endpoint.stats
  expect(endpoint.take(new Uint8Array(2 * MiB), false)).toBeGreaterThan(MiB)
  await expect.poll(() => endpoint.stats.writes).toBeGreaterThan(writes)
  endpoint.drop()
  await done
  expect(endpoint.stats).toMatchObject({
    currentBytes: 0,
    sealedBytes: 0,
    waitingMs: 0,
    mode: 'drop',
    writes: 3,
  })
})

test('what has no room in memory goes through a file; one that is full fails the next take, and no write', async () => {
  const bytes = 8 * MiB
  const { endpoint, folder, uri } = openEndpoint(bytes, 128 * 1024)
  const file = await openUnnamed(join(folder, 'spill'))
  const broke = vi.fn()
  endpoint.spillTo(file, 64 * MiB, broke)
  expect(() => endpoint.spillTo(file, bytes, broke)).toThrow(TypeError)
  await file.close()
  endpoint.record()
  await qemuIo(uri, 'write -P 1 0 1M', 'write -P 2 512k 3M', 'write -P 3 6M 64k')
  const { currentBytes, spilledBytes } = endpoint.stats
  expect(spilledBytes).toBeGreaterThan(3 * MiB)
  expect(currentBytes - spilledBytes).toBeLessThanOrEqual(128 * 1024)
  const expected = Buffer.alloc(bytes)
  expected
    .fill(1, 0, MiB)
    .fill(2, MiB / 2, 3.5 * MiB)
    .fill(3, 6 * MiB, 6 * MiB + 65536)
  const fd = openFile(join(folder, 'standby'), bytes)
  await redo(endpoint, fd, bytes, false)
  expect(readFileSync(join(folder, 'standby')).equals(expected)).toBe(true)
  expect(endpoint.stats).toMatchObject({ spilledBytes: 0, spilledTotalBytes: spilledBytes })

  const other = openEndpoint(bytes, 128 * 1024)
  const full = await open('/dev/full', 'r+')
  const told = vi.fn()
  other.endpoint.spillTo(full, bytes, told)
  await full.close()
  other.endpoint.record()
  await qemuIo(other.uri, 'write -P 1 0 64k', 'write -P 2 1M 1M', 'write -P 3 0 1M')
  // Also while nobody takes.
  await expect.poll(() => told.mock.calls).toEqual([[expect.objectContaining({ code: 'ENOSPC' })]])
  expect(() => other.endpoint.take(new Uint8Array(MiB), false)).toThrow(
    expect.objectContaining({ code: 'ENOSPC' }),
  )
  expect(broke).not.toHaveBeenCalled()
  expect(other.endpoint.stats).toMatchObject({ mode: 'drop', writes: 3, waitingMs: 0 })
})

test('the endpoint ends while a write waits for room, and with its socket', async () => {
  const { endpoint, path, uri } = openEndpoint(8 * MiB, 4096)
  endpoint.record()
  const done = qemuIo(uri, 'write -P 1 0 64k', 'write -P 2 1M 64k')
  await expect.poll(() => endpoint.stats.waitingMs).toBeGreaterThan(0)
  expect(statSync(path).mode & 0o777).toBe(0o600)
  endpoint.close()
  endpoint.close()
  await done.catch((error: Error) => expect(error.message).toMatch(/failed|error/i))
  expect(existsSync(path)).toBe(false)
  expect(() => endpoint.stats).toThrow(/closed/)
})

test('any writes, seals, unseals and takes into small buffers give the disk', async () => {
  const bytes = 2 * chunkBytes + 1024
  const { endpoint, folder, uri } = openEndpoint(bytes)
  const fd = openFile(join(folder, 'standby'), bytes)
  const write = fc.record({
    sector: fc.integer({ min: 0, max: bytes / 512 - 1 }),
    sectors: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.constant(128), fc.constant(300)),
    content: fc.integer({ min: 0, max: 3 }),
  })
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.array(write, { minLength: 1, maxLength: 12 }) },
    fc.constantFrom('seal' as const, 'unseal' as const, 'know' as const, 'all' as const),
    fc.integer({ min: 17, max: 70_000 }),
  )
  const expected = Buffer.from(readFileSync(join(folder, 'standby')))
  endpoint.record()
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 8 }), async (steps) => {
      for (const next of steps) {
        if (typeof next === 'number') {
          const into = new Uint8Array(next)
          await applyDisk(fd, into.slice(0, endpoint.take(into, true)), 0)
        } else if (next === 'seal') endpoint.seal()
        else if (next === 'unseal') endpoint.unseal()
        else if (next === 'know') endpoint.know(await hashDisk(fd, bytes))
        else if (next === 'all') {
          await redo(endpoint, fd, bytes, true, 5000)
          await redo(endpoint, fd, bytes, false, 5000)
        } else {
          const commands = next.map(({ sector, sectors, content }) => {
            const length = Math.min(sectors * 512, bytes - sector * 512)
            expected.fill(content, sector * 512, sector * 512 + length)
            return `write -P ${content} ${sector * 512} ${length}`
          })
          await qemuIo(uri, ...commands)
        }
      }
      endpoint.unseal()
      await redo(endpoint, fd, bytes, false, 30_000)
      expect(readFileSync(join(folder, 'standby')).equals(expected)).toBe(true)
    }),
    { numRuns: 10 },
  )
})

describe('files', () => {
  test('hashes are those of memory with the same content; holes are zeros', async () => {
    const { folder } = openEndpoint(MiB)
    const bytes = 130 * chunkBytes + 4096
    const fd = openFile(join(folder, 'sparse'), bytes)
    writeSync(fd, Buffer.alloc(5000, 7), 0, 5000, 3 * chunkBytes + 100)
    writeSync(fd, Buffer.from('end'), 0, 3, bytes - 3)
    using region = Region.map(join(folder, 'sparse'), { writable: false })
    const hashes = await hashDisk(fd, bytes)
    expect(hashes.length).toBe(131 * 16)
    // Of a chunk that is written, and of one that is not, in the byte order of all other hashes.
    const zero = Buffer.from(hashes.subarray(0, 16)).toString('hex')
    expect(Buffer.from(hashes.subarray(129 * 16, 130 * 16)).toString('hex')).toBe(zero)
    expect(Buffer.from(hashes.subarray(3 * 16, 4 * 16)).toString('hex')).not.toBe(zero)
    expect(Buffer.from(hashes.subarray(130 * 16)).toString('hex')).toBe(
      Buffer.from(hashBlocksSync(region, PageRanges.of([[130 * 16, 1]]), 4096)).toString('hex'),
    )
    await expect(hashDisk(fd, bytes + 1)).rejects.toMatchObject({ code: 'ENODATA' })
  })

  test('zeros take no room where the file system knows holes', async () => {
    const { folder } = openEndpoint(MiB)
    const fd = openFile(join(folder, 'disk'), MiB)
    writeSync(fd, Buffer.alloc(MiB, 1))
    await syncDisk(fd)
    const record = Buffer.alloc(16)
    record.writeUInt32LE(MiB, 8)
    record.writeUInt32LE(1, 12)
    await applyDisk(fd, record, 0)
    expect(readFileSync(join(folder, 'disk')).equals(Buffer.alloc(MiB))).toBe(true)
    expect(statSync(join(folder, 'disk'))).toMatchObject({ size: MiB, blocks: 0 })
  })

  test('what a file does not take is an error with its code', async () => {
    const record = Buffer.alloc(17)
    record.writeUInt32LE(1, 8)
    const full = openSync('/dev/full', 'r+')
    onTestFinished(() => closeSync(full))
    await expect(applyDisk(full, record, 0)).rejects.toMatchObject({ code: 'ENOSPC' })
    await expect(applyDisk(full, record.subarray(0, 9), 0)).rejects.toMatchObject({ code: 'EBADMSG' })
    await expect(applyDisk(1 << 20, record, 0)).rejects.toMatchObject({ code: 'EBADF' })
    await expect(syncDisk(1 << 20)).rejects.toMatchObject({ code: 'EBADF' })
    await expect(hashDisk(1 << 20, MiB)).rejects.toMatchObject({ code: 'EBADF' })
  })
})

describe('misuse', () => {
  test('a path that is too long, a folder that is not there, a file that is no socket', () => {
    const { folder } = openEndpoint(MiB)
    const open = (path: string) => DiskEndpoint.open({ path, bytes: MiB, journalBytesMax: MiB })
    const longest = join(folder, 'x'.repeat(107 - folder.length - 1))
    open(longest).close()
    expect(() => open(`${longest}x`)).toThrow(expect.objectContaining({ code: 'ENAMETOOLONG' }))
    expect(() => open(join(folder, 'none', 'disk'))).toThrow(expect.objectContaining({ code: 'ENOENT' }))
    writeFileSync(join(folder, 'file'), 'kept')
    expect(() => open(join(folder, 'file'))).toThrow(expect.objectContaining({ code: 'EEXIST' }))
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('kept')
  })

  test.each<[string, (endpoint: DiskEndpoint) => void]>([
    ['hashes of another disk', (endpoint) => endpoint.know(new Uint8Array(16))],
    ['a buffer without room for a record', (endpoint) => endpoint.take(new Uint8Array(16), true)],
    ['a buffer that is none', (endpoint) => endpoint.take(undefined as never, true)],
  ])('%s is a TypeError', (_, call) => {
    const { endpoint } = openEndpoint(2 * MiB)
    expect(() => call(endpoint)).toThrow(TypeError)
    endpoint.close()
    expect(() => call(endpoint)).toThrow(/closed/)
  })

  test('an endpoint that nobody closed ends with its process', () => {
    const { folder } = openEndpoint(MiB)
    const script = `import { DiskEndpoint } from ${JSON.stringify(join(import.meta.dirname, '../../dist/src/disk/endpoint.js'))}
      DiskEndpoint.open({ path: process.argv[1], bytes: 4096, journalBytesMax: 4096 }).record()`
    const path = join(folder, 'left.sock')
    execFileSync(process.execPath, ['--input-type=module', '-e', script, path])
    expect(existsSync(path)).toBe(false)
  })
})
