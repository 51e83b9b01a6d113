/** Files that are no raw memory are called by their names: made by the real tools, and by the published magic numbers. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { surveyImage } from '../../../src/density/survey-images.ts'
import { formatOf, knownFormats } from '../../../src/memory/images/known-formats.ts'
import { openImage } from '../../../src/memory/images/memory-image.ts'
import { pageBytes } from '../../../src/memory/page.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-formats-'))
const file = (name: string) => join(folder, name)
afterAll(() => rmSync(folder, { recursive: true }))

/** What anybody would do with an image. */
const uses: [string, (path: string) => unknown][] = [
  ['record images', openImage],
  ['density analyze', surveyImage],
]

describe('made by its tool', () => {
  const run = (command: string, ...args: string[]) => execFileSync(command, args, { cwd: folder })
  /** What the tool writes to its standard output. */
  const out = (command: string, ...args: string[]) =>
    writeFileSync(file('made'), run(command, ...args, 'memory'))
  beforeAll(() => writeFileSync(file('memory'), Buffer.alloc(16 * pageBytes, 'memory of a machine ')))

  const made: [name: string, make: () => unknown][] = [
    ['a gzip file', () => out('gzip', '-c')],
    ['a zstd file', () => out('zstd', '-qc')],
    ['an xz file', () => out('xz', '-c')],
    ['an lzma file', () => out('xz', '-c', '--format=lzma')],
    ['a bzip2 file', () => out('bzip2', '-c')],
    ['an lz4 file', () => out('lz4', '-qc')],
    ['an lz4 file', () => out('lz4', '-qlc')],
    ['a zip archive', () => out('zip', '-q', '-')],
    ['a tar archive', () => out('tar', '-cf', '-')],
    ['a tar archive', () => out('tar', '--format=posix', '-cf', '-')],
    ['an ar archive', () => run('ar', 'qc', 'made', 'memory')],
    [
      'an encrypted file of OpenSSL',
      () => run('openssl', 'enc', '-aes-128-ctr', '-k', 'x', '-in', 'memory', '-out', 'made'),
    ],
    ['a qcow or qcow2 disk', () => run('qemu-img', 'create', '-qf', 'qcow2', 'made', '1M')],
    ['a qcow or qcow2 disk', () => run('qemu-img', 'create', '-qf', 'qcow', 'made', '1M')],
    ['a QED disk', () => run('qemu-img', 'create', '-qf', 'qed', 'made', '1M')],
    ['a VMDK disk', () => run('qemu-img', 'create', '-qf', 'vmdk', 'made', '1M')],
    ['a VDI disk', () => run('qemu-img', 'create', '-qf', 'vdi', 'made', '1M')],
    ['a VHD disk', () => run('qemu-img', 'create', '-qf', 'vpc', 'made', '1M')],
    ['a VHDX disk', () => run('qemu-img', 'create', '-qf', 'vhdx', 'made', '1M')],
    ['a Parallels disk', () => run('qemu-img', 'create', '-qf', 'parallels', 'made', '1M')],
    [
      'swap space of Linux, perhaps with a hibernated system',
      () => {
        writeFileSync(file('made'), new Uint8Array(64 * pageBytes), { mode: 0o600 })
        execFileSync('/sbin/mkswap', [file('made')], { stdio: 'ignore' })
      },
    ],
  ]
  test.each(made)('%s (%#)', (name, make) => {
    rmSync(file('made'), { force: true })
    make()
    // Its size says nothing: a file of whole pages is no more memory than another.
    const bytes = readFileSync(file('made'))
    for (const content of [
      bytes,
      Buffer.concat([bytes, Buffer.alloc(pageBytes - (bytes.length % pageBytes))]),
    ]) {
      writeFileSync(file('made'), content)
      for (const [use, open] of uses)
        expect(() => open(file('made')), use).toThrow(
          expect.objectContaining({
            code: 'IMAGE_MALFORMED',
            message: expect.stringMatching(`made is ${name}, not raw memory: .{10,}`),
          }),
        )
    }
  })
})

test('every magic number of the table is found, alone, wherever it stands', () => {
  for (const { name, magics } of knownFormats)
    for (const { at, bytes, mask } of magics) {
      const start = Buffer.alloc(pageBytes)
      start.set(bytes, at)
      expect(formatOf(start)?.name, name).toBe(name)
      // Bits that do not count may be anything.
      if (mask) for (const [i, bits] of mask.entries()) start[at + i] = start[at + i]! | (~bits & 0xff)
      expect(formatOf(start)?.name, name).toBe(name)
      // A file may end within it, or be of other bytes.
      expect(formatOf(start.subarray(0, at + bytes.length - 1))).toBeUndefined()
      start[at + bytes.length - 1] = start[at + bytes.length - 1]! ^ (mask?.at(-1) ?? 0xff)
      expect(formatOf(start), name).toBeUndefined()
    }
})

/** First bytes as other projects document them; those of the tools above are made by the tools. */
const published: [name: RegExp, start: string | number[]][] = [
  [/kdump/, 'KDUMP   '],
  [/diskdump/, 'DISKDUMP'],
  [/flattened/, 'makedumpfile\0\0\0\0'],
  [/LKCD/, [0xed, 0x23, 0x8f, 0x61, 0x73, 0x01, 0x19, 0xa8]],
  [/saved machine of libvirt/, 'LibvirtQemudSave'],
  [/did not finish saving/, 'LibvirtQemudPart'],
  [/migration stream/, 'QEVM\0\0\0\x03'],
  [/AVML/, 'AVML\x02\0\0\0'],
  [/Windows \(64/, 'PAGEDU64'],
  [/Windows \(32/, 'PAGEDUMP'],
  [/hibernation/, 'HIBR'],
  [/hibernation/, 'wake'],
  [/VMware/, [0xd2, 0xbe, 0xd2, 0xbe]],
  [/VirtualBox/, '\x7fVirtualBox SavedState V2.0\n'],
  [/Xen/, 'Xen saved domain, xl format\n \0 \r'],
  [/Firecracker/, [0x00, 0x00, 0x64, 0x86, 0x84, 0x19, 0x10, 0x07]],
  [/minidump/, [0x4d, 0x44, 0x4d, 0x50, 0x93, 0xa7]],
  [/EWF/, 'EVF\x09\x0d\x0a\xff\0'],
  [/LUKS/, 'LUKS\xba\xbe'],
  [/7z/, [0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c]],
  [/rar/, 'Rar!\x1a\x07\x01\0'],
  [/cpio/, '070701'],
  [/lzop/, [0x89, 0x4c, 0x5a, 0x4f, 0x00, 0x0d, 0x0a, 0x1a, 0x0a]],
  [/trace of subpage/, 'SPTRACE\n'],
]

test.each(published)('%s', (name, start) => {
  const bytes = Buffer.alloc(2 * pageBytes)
  bytes.set(typeof start === 'string' ? Buffer.from(start, 'latin1') : start)
  writeFileSync(file('made'), bytes)
  for (const [use, open] of uses)
    expect(() => open(file('made')), use).toThrow(
      expect.objectContaining({ code: 'IMAGE_MALFORMED', message: expect.stringMatching(name) }),
    )
})

test('memory of machines and processes is not taken for anything else', () => {
  // A real-mode interrupt table, zeros, text, code.
  for (const start of ['53ff00f0c3e200f0', '00000000000000', '2f62696e2f7368', '554889e54883ec10']) {
    const bytes = Buffer.alloc(2 * pageBytes)
    bytes.set(Buffer.from(start, 'hex'))
    writeFileSync(file('memory'), bytes)
    openImage(file('memory')).close()
  }
})
