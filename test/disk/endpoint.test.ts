/** The endpoint of a disk, with clients that are not ours: qemu-io, qemu-img, nbdinfo, nbdcopy. */
import { execFile } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { DiskEndpoint } from '../../src/disk/endpoint.ts'
import { applyDisk, checkDisk } from '../../src/disk/records.ts'

const run = promisify(execFile)
const MiB = 2 ** 20

function open(bytes: number, journalBytesMax = 64 * MiB) {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-disk-'))
  const path = join(folder, 'disk.sock')
  const endpoint = DiskEndpoint.open({ path, bytes, journalBytesMax })
  onTestFinished(() => {
    endpoint.close()
    rmSync(folder, { recursive: true })
  })
  return { endpoint, folder, path, uri: `nbd:unix:${path}` }
}

const qemuIo = (uri: string, ...commands: string[]) =>
  run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri])

/** Everything that is recorded, applied to a file of zeros. */
async function replay(endpoint: DiskEndpoint, folder: string, bytes: number): Promise<Buffer> {
  const file = join(folder, 'replayed')
  writeFileSync(file, '')
  truncateSync(file, bytes)
  const fd = openSync(file, 'r+')
  const into = new Uint8Array(MiB)
  endpoint.unseal()
  for (let used = endpoint.take(into, false); used > 0; used = endpoint.take(into, false)) {
    const payload = into.slice(0, used)
    checkDisk(payload, 0, bytes)
    await applyDisk(fd, payload, 0)
  }
  closeSync(fd)
  return readFileSync(file)
}

test('qemu-io writes, and the records give the disk', async () => {
  const bytes = 8 * MiB
  const { endpoint, folder, uri } = open(bytes)
  endpoint.record()
  await qemuIo(uri, 'write -P 1 0 4k', 'write -P 2 513 511', 'flush', 'write -P 3 1M 3M', 'write -z 2M 64k')
  const expected = Buffer.alloc(bytes)
  expected
    .fill(1, 0, 4096)
    .fill(2, 513, 1024)
    .fill(3, MiB, 4 * MiB)
    .fill(0, 2 * MiB, 2 * MiB + 65536)
  expect(endpoint.stats).toMatchObject({ connections: 1, mode: 'record' })
  expect(endpoint.stats.flushes).toBeGreaterThan(0)
  expect((await replay(endpoint, folder, bytes)).equals(expected)).toBe(true)
})
