/** Writable disks: how they are asked for, what can be one, and the files that subpage makes. */
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { parseSize } from '../../src/cli/sizes.ts'
import { limits } from '../../src/limits.ts'
import { assertThreadsHold, type DiskRequest, diskOptions, parseDisks } from '../../src/qemu/disk.ts'
import { makeDisks, removeDisks } from '../../src/qemu/disk-files.ts'
import { disksOf, ownDiskPath } from '../../src/qemu/disk-places.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { journalBytesOf, journalFileBytesOf } from '../../src/qemu/mirrored-disk.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-disk-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const files = guestFiles(join(directory, 'state'), 'web')
const owner = { id: '6f9619ff-8b86-4d01-b42d-00cf4fc964ff', name: 'web' }
const parse = (text: string) => parseDisks(text, parseSize)
const of = (...requests: DiskRequest[]) => disksOf(requests, files, owner)
const raw = (name: string, bytes: number) => {
  const path = join(directory, name)
  writeFileSync(path, '')
  truncateSync(path, bytes)
  return path
}

describe('how they are asked for', () => {
  test.each([
    ['', []],
    ['/var/web.qcow2', [{ path: '/var/web.qcow2' }]],
    ['path=/a,,b.raw', [{ path: '/a,b.raw' }]],
    ['/a.raw,name=data,bus=scsi,format=raw', [{ path: '/a.raw', name: 'data', bus: 'scsi', format: 'raw' }]],
    ['size=1M', [{ bytes: 2 ** 20 }]],
    ['/a,cache=none,iothread=on,bootindex=1', [{ path: '/a', cache: 'none', iothread: true, bootindex: 1 }]],
    [
      '/a,discard=unmap,werror=stop,rerror=report,aio=native',
      [{ path: '/a', discard: true, werror: 'stop', rerror: 'report', aio: 'native' }],
    ],
    // As several flags come.
    ['/a,/b,name=b', [{ path: '/a' }, { path: '/b', name: 'b' }]],
    [
      'name=a,size=1M,name=b,size=2M',
      [
        { name: 'a', bytes: 2 ** 20 },
        { name: 'b', bytes: 2 ** 21 },
      ],
    ],
  ])('%s', (text, requests) => expect(parse(text)).toEqual(requests))

  test('a relative path is one of this directory', () => {
    expect(parse('web.raw')).toEqual([{ path: join(process.cwd(), 'web.raw') }])
  })

  test.each([
    ['name=x', /give a path, or size=/],
    ['/a,color=red', /color= is not known/],
    ['size=1M,bus=usb', /bus is one of virtio, scsi, sata/],
    ['/a,format=vmdk', /format is one of raw, qcow2/],
    ['/a,cache=unsafe', /cache is one of writeback, none/],
    ['/a,iothread=yes', /iothread is one of on, off/],
    ['/a,discard=maybe', /discard is one of unmap, ignore/],
    ['/a,werror=ignore', /werror is one of report, enospc, stop/],
    ['/a,rerror=enospc', /rerror is one of report, stop/],
    ['/a,bootindex=first', /bootindex is a number/],
    ['/a,bootindex=256', /bootindex is a number/],
    ['size=65T', /at most 64 TiB/],
    ['size=0.75K', /not a multiple of 512/],
    ['size=1M,name=a/b', /a name has up to 16/],
  ])('%s is refused', (text, why) => {
    expect(() => parse(text)).toThrow(
      expect.objectContaining({ code: 'BAD_ARGUMENT', message: expect.stringMatching(why) }),
    )
  })
})

describe('what can be one', () => {
  test('a raw file, and a qcow2 image by its name', () => {
    const image = join(directory, 'image.qcow2')
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '3M'])
    expect(of({ path: raw('plain', 2 ** 20) }, { path: image })).toEqual([
      { name: 'disk0', bytes: 2 ** 20, bus: 'virtio', path: join(directory, 'plain'), format: 'raw' },
      { name: 'disk1', bytes: 3 * 2 ** 20, bus: 'virtio', path: image, format: 'qcow2' },
    ])
  })

  test('has no thread of its own where that would hang', () => {
    const [plain, threaded] = of({ bytes: 512 }, { bytes: 512, iothread: true })
    assertThreadsHold('7.2.22', [plain!, threaded!])
    assertThreadsHold('10.0.2', [plain!])
    expect(() => assertThreadsHold('10.0.2', [plain!, threaded!])).toThrow(
      expect.objectContaining({
        code: 'GUEST_UNPROTECTABLE',
        message: expect.stringMatching(/leave iothread out/),
      }),
    )
  })

  test('a new one has its place in the state directory, which no name leads out of', () => {
    const [disk] = of({ bytes: 2 ** 20, name: 'data' })
    expect(disk).toMatchObject({ path: join(directory, 'state/disks/web.6f9619ff/data.raw'), made: true })
  })

  test.each([
    ['nothing', join(directory, 'absent'), /does not exist/],
    ['a relative path', 'web.raw', /whole path/],
    ['a directory', directory, /a directory, neither/],
    ['a device that is no disk', '/dev/null', /a device, neither/],
    ['an empty file', raw('empty', 0), /not that of a disk/],
    ['a file of an odd size', raw('odd', 1000), /multiple of 512/],
  ])('%s cannot', (_, path, why) => {
    expect(() => of({ path })).toThrow(
      expect.objectContaining({ code: 'DISK_UNUSABLE', message: expect.stringMatching(why) }),
    )
  })

  test('nor can what is no image of the format that is said', () => {
    expect(() => of({ path: raw('said', 2 ** 20), format: 'qcow2' })).toThrow(/no qcow2 image/)
  })

  test('a disk on another bus with a thread of its own is refused', () => {
    expect(() => of({ bytes: 512, bus: 'scsi', iothread: true })).toThrow(/only disks on virtio/)
  })

  test('two names, or two disks in one file, are refused', () => {
    const path = raw('twice', 2 ** 20)
    symlinkSync(path, join(directory, 'link'))
    expect(() => of({ path }, { path: join(directory, 'link') })).toThrow(/one file cannot be two disks/)
    expect(() => of({ bytes: 512, name: 'a' }, { path, name: 'a' })).toThrow(/same name/)
  })

  test('what QEMU is told is the same on both hosts but for the file', () => {
    const options = (path: string) =>
      diskOptions([{ name: 'd', bytes: 512, bus: 'virtio', path, format: 'raw' }])
    expect(options('/a,b').join(' ').replace('/a,,b', '/c')).toBe(options('/c').join(' '))
    const text = (cache: 'none' | 'writeback' | 'directsync') =>
      diskOptions([{ name: 'd', bytes: 512, bus: 'sata', path: '/c', format: 'raw', cache }]).join(' ')
    expect(text('writeback')).not.toMatch(/cache/)
    expect(text('none')).toMatch(/,cache.direct=on,file.cache.direct=on,/)
    expect(text('none')).not.toMatch(/write-cache/)
    expect(text('directsync')).toMatch(/,cache.direct=on,.*,write-cache=off/)
    const shape = { name: 'd', bytes: 512, bus: 'scsi', path: '/c', format: 'raw' } as const
    const [, , , node, , device] = diskOptions([
      { ...shape, discard: true, werror: 'stop', rerror: 'report', aio: 'native' },
    ])
    expect(node).toMatch(/,discard=unmap,.*,file.discard=unmap,file.aio=native,/)
    expect(device).toMatch(/,werror=stop,rerror=report,/)
  })
})

test('what all journals hold fits into a checkpoint beside what goes early, however many disks there are', () => {
  for (let disks = 1; disks <= limits.disks.value; disks++) {
    const memory = journalBytesOf(disks)
    expect(memory).toBeGreaterThanOrEqual(6 * 2 ** 20)
    expect(journalFileBytesOf(disks)).toBeGreaterThanOrEqual(memory)
    // Half of a checkpoint goes early; a write that was just taken may come on top.
    const early = limits.checkpointDiskBytes.value / 2
    expect(disks * (memory + journalFileBytesOf(disks)) + early).toBeLessThan(
      limits.checkpointDiskBytes.value - 32 * 2 ** 20,
    )
  }
})

describe('the files that subpage makes', () => {
  const disk = (name: string, bytes = 2 ** 20) => of({ bytes, name })

  test('are sparse, for their user alone, and go where a start fails', () => {
    const disks = disk('fresh')
    const { path } = disks[0]!
    expect(makeDisks(disks)).toEqual([path])
    const { mode, size, blocks } = statSync(path)
    expect([mode & 0o777, size, blocks]).toEqual([0o600, 2 ** 20, 0])
    expect(statSync(dirname(path)).mode & 0o777).toBe(0o700)
    removeDisks([path])
    expect(existsSync(dirname(path))).toBe(false)
  })

  test('are taken up again when they are there, and then stay', () => {
    const disks = disk('again')
    makeDisks(disks)
    const { path } = disks[0]!
    writeFileSync(path, 'content', { flag: 'r+' })
    const { mtimeNs } = statSync(path, { bigint: true })
    expect(makeDisks(disks)).toEqual([])
    expect(statSync(path).blocks).toBeGreaterThan(0)
    // By which its map knows that nobody else has written to it.
    expect(statSync(path, { bigint: true }).mtimeNs).toBe(mtimeNs)
  })

  test('grow with the disk that they are a copy of, and keep what they have', () => {
    makeDisks(disk('grown'))
    const path = ownDiskPath(files, owner, 'grown')
    writeFileSync(path, 'content', { flag: 'r+' })
    expect(makeDisks(disk('grown', 2 ** 21))).toEqual([])
    expect(statSync(path).size).toBe(2 ** 21)
    expect(readFileSync(path, 'utf8')).toMatch(/^content/)
    expect(() => makeDisks(disk('grown', 2 ** 45))).toThrow(expect.objectContaining({ code: 'NO_SPACE' }))
    expect(statSync(path).size).toBe(2 ** 21)
  })

  test('a larger file, a link and a directory in their place are refused, and nothing is changed', () => {
    makeDisks(disk('sized', 2 ** 21))
    expect(() => makeDisks(disk('sized'))).toThrow(/move it away/)
    expect(statSync(ownDiskPath(files, owner, 'sized')).size).toBe(2 ** 21)
    symlinkSync(raw('target', 2 ** 20), ownDiskPath(files, owner, 'linked'))
    expect(() => makeDisks(disk('linked'))).toThrow(
      expect.objectContaining({ code: 'DISK_UNUSABLE', message: expect.stringMatching(/ELOOP/) }),
    )
    mkdirSync(ownDiskPath(files, owner, 'folder'))
    expect(() => makeDisks(disk('folder'))).toThrow(/EISDIR/)
  })

  test('more than there is room for is refused before it is made, and so is what was made with it', () => {
    const [small, huge] = of({ bytes: 2 ** 20, name: 'small' }, { bytes: 2 ** 45, name: 'huge' })
    expect(() => makeDisks([small!, huge!])).toThrow(expect.objectContaining({ code: 'NO_SPACE' }))
    expect([small!.path, huge!.path].map(existsSync)).toEqual([false, false])
  })
})
