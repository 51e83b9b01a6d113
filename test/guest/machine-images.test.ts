/** What a real QEMU writes of its memory: its ELF dump and its raw image are one memory, all its other forms are named. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { openImage } from '../../src/memory/images/memory-image.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { qemuBinary } from '../../src/qemu/launch.ts'
import { Qmp } from '../../src/qemu/qmp.ts'

const ramBytes = 32 * 2 ** 20
const folder = mkdtempSync(join(tmpdir(), 'subpage-machine-'))
const file = (name: string) => join(folder, name)
let qemu: ChildProcess
let qmp: Qmp

beforeAll(async () => {
  qemu = spawn(
    qemuBinary,
    [
      ...['-M', 'pc', '-accel', 'tcg', '-m', `${ramBytes / 2 ** 20}M`, '-nodefaults', '-display', 'none'],
      ...['-qmp', `unix:${file('qmp')},server=on,wait=off`],
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  )
  qmp = await vi.waitFor(() => Qmp.connect(file('qmp')), { timeout: 20_000, interval: 5 })
  // The firmware has run far enough to have its tables in memory.
  await vi.waitUntil(
    async () => {
      await qmp.run('pmemsave', { val: 0, size: ramBytes, filename: file('raw') })
      const image = openImage(file('raw'))
      const page = new Uint8Array(pageBytes)
      image.read(0, page)
      image.close()
      return page.some((byte) => byte !== 0)
    },
    { timeout: 20_000, interval: 20 },
  )
  await qmp.run('stop')
})

afterAll(async () => {
  qmp?.close()
  const exited = once(qemu, 'exit')
  qemu.kill('SIGKILL')
  await exited
  rmSync(folder, { recursive: true })
})

const dump = (name: string, format?: string) =>
  qmp.run('dump-guest-memory', {
    paging: false,
    protocol: `file:${file(name)}`,
    ...(format && { format }),
  })

test('the ELF dump and the raw image of a machine hold the same memory', async () => {
  await dump('elf')
  await qmp.run('pmemsave', { val: 0, size: ramBytes, filename: file('raw') })
  const [elf, raw] = [openImage(file('elf')), openImage(file('raw'))]
  expect([elf.kind, raw.kind]).toEqual(['elf', 'raw'])
  let compared = 0
  const [a, b] = [new Uint8Array(pageBytes), new Uint8Array(pageBytes)]
  for (const { firstPage, pageCount, address } of elf.areas)
    for (let i = 0; i < pageCount && address + (i + 1) * pageBytes <= ramBytes; i++) {
      // The window of the video card is not RAM.
      if (address + i * pageBytes >= 0xa0000 && address + i * pageBytes < 0x10_0000) continue
      elf.read(firstPage + i, a)
      raw.read(address / pageBytes + i, b)
      expect(Buffer.compare(a, b), `page ${address / pageBytes + i}`).toBe(0)
      compared++
    }
  expect(compared).toBeGreaterThan(ramBytes / pageBytes - 200)
  elf.close()
  raw.close()
})

test.each(['kdump-zlib', 'kdump-lzo', 'kdump-snappy'])('a dump in the form %s is named', async (format) => {
  try {
    await dump(format, format)
  } catch (error) {
    // QEMU may be built without a compressor; it says so, and writes nothing that could be taken for an image.
    expect(String(error)).toMatch(/not available|support/)
    return
  }
  expect(() => openImage(file(format))).toThrow(/flattened dump of makedumpfile.*dump-guest-memory/s)
})

test('a migration stream is named', async () => {
  await qmp.run('migrate', { uri: `exec:cat > ${file('stream')}` })
  await vi.waitUntil(
    async () => (await qmp.run<{ status: string }>('query-migrate')).status === 'completed',
    { timeout: 20_000, interval: 20 },
  )
  expect(() => openImage(file('stream'))).toThrow(/migration stream of QEMU/)
})
