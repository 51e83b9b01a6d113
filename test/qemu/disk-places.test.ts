/** Where a standby keeps its copies of disks: what a peer may name, and what was there before. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { RawDisk } from '../../src/disk/raw-disk.ts'
import type { Disk } from '../../src/qemu/disk.ts'
import { copyOf, disksOf, ownDiskPath, readDiskDirectories } from '../../src/qemu/disk-places.ts'
import { guestFiles, prepareFiles } from '../../src/qemu/guest-files.ts'
import { type GuestRecord, writeRecord } from '../../src/qemu/guest-record.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-places-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const state = join(directory, 'state')
const files = guestFiles(state, 'web')
const owner = { id: '6f9619ff-8b86-4d01-b42d-00cf4fc964ff', name: 'web' }
const bytes = 2 ** 20
const allowed = join(directory, 'allowed')
mkdirSync(allowed)

function raw(path: string, size = bytes): string {
  writeFileSync(path, '')
  truncateSync(path, size)
  return path
}

const copy = (place?: string, directories = [allowed]) =>
  copyOf(
    { name: 'data', bytes, bus: 'virtio', ...(place !== undefined && { place }) },
    files,
    owner,
    directories,
  )

/** A guest of this host that has this disk. */
function guestWith(name: string, id: string, disk: Partial<Disk> & { path: string }): void {
  const of = guestFiles(state, name)
  prepareFiles(of)
  const machine = { type: 'q35', ramBytes: 2 ** 24, accel: 'tcg', options: [], nics: [] }
  const whole = { name: 'data', bytes, bus: 'virtio', format: 'raw', ...disk }
  const process = { pid: 1, startTime: '1' }
  const record = { format: 1, id, generation: 1, arbitrated: false, name, qemuVersion: '', waiting: false }
  writeRecord(of, { ...record, process, machine: { ...machine, disks: [whole] } } as unknown as GuestRecord)
}

describe('the format of a disk that is there', () => {
  const qcow2 = (path: string) => {
    const head = Buffer.alloc(512)
    head.write('QFI\xfb', 'latin1')
    head.writeBigUInt64BE(BigInt(bytes), 24)
    writeFileSync(path, head)
    return path
  }
  const disk = (path: string, format?: Disk['format']) =>
    disksOf([{ path, ...(format && { format }) }], files, owner)[0]

  test('is the one that is given', () => {
    const path = qcow2(join(directory, 'given.img'))
    expect(disk(path, 'raw')).toMatchObject({ format: 'raw', bytes: 512 })
    expect(disk(path, 'qcow2')).toMatchObject({ format: 'qcow2', bytes })
  })

  test('follows from a name that ends in .qcow2, which no guest can change', () => {
    expect(disk(qcow2(join(directory, 'named.qcow2')))).toMatchObject({ format: 'qcow2', bytes })
    expect(() => disk(raw(join(directory, 'not.qcow2')))).toThrow(/no qcow2 image/)
  })

  test('never follows from what is in it, which a guest may have written', () => {
    expect(disk(raw(join(directory, 'plain.img')))).toMatchObject({ format: 'raw', bytes })
    expect(() => disk(qcow2(join(directory, 'written.img')))).toThrow(
      expect.objectContaining({
        code: 'DISK_UNUSABLE',
        message: expect.stringMatching(/format=qcow2 if it is one, format=raw/),
      }),
    )
  })
})

describe('a place that a peer names', () => {
  test('is used as it is, and is not ours', () => {
    const path = raw(join(allowed, 'a.raw'))
    expect(copy(path)).toEqual({ name: 'data', bytes, bus: 'virtio', path, format: 'raw' })
  })

  const outside = raw(join(directory, 'outside.raw'))
  symlinkSync(outside, join(allowed, 'out'))
  mkdirSync(join(allowed, 'folder'))
  raw(join(allowed, 'small.raw'), 512)
  test.each([
    ['elsewhere', outside, /--disks DIRECTORY/],
    ['elsewhere, where nothing is', join(directory, 'nothing'), /--disks DIRECTORY/],
    ['elsewhere, by two dots', `${allowed}/../outside.raw`, /--disks DIRECTORY/],
    ['elsewhere, by a link', join(allowed, 'out'), /--disks DIRECTORY/],
    ['the directory itself', allowed, /--disks DIRECTORY/],
    ['no whole path', 'a.raw', /beginning with/],
    ['with a NUL', `${allowed}/a\0`, /beginning with/],
    ['nothing', join(allowed, 'nothing'), /does not exist/],
    ['a folder', join(allowed, 'folder'), /neither a regular file/],
    ['another size', join(allowed, 'small.raw'), /512 bytes, the disk has 1048576/],
  ])('%s is refused', (_, path, why) => {
    expect(() => copy(path)).toThrow(
      expect.objectContaining({ code: 'DISK_UNUSABLE', message: expect.stringMatching(why) }),
    )
  })

  test('is refused where the operator has named no directories', () => {
    expect(() => copy(join(allowed, 'a.raw'), [])).toThrow(/--disks DIRECTORY/)
    expect(readDiskDirectories(undefined)).toEqual([])
    expect(readDiskDirectories('/dev/vg0:/srv/disks')).toEqual(['/dev/vg0', '/srv/disks'])
    for (const wrong of ['disks', '/', '/a:', '/a/..'])
      expect(() => readDiskDirectories(wrong)).toThrow(/--disks/)
  })

  test('is not the disk of another guest of this host; nor is what run gets', () => {
    const path = raw(join(allowed, 'taken.raw'))
    guestWith('other', 'other', { path })
    const taken = /in use: guest other of this host/
    expect(() => copy(path)).toThrow(taken)
    expect(() => disksOf([{ path }], files, owner)).toThrow(taken)
  })

  /** Whoever has it, it is neither a copy nor a disk; afterwards it is both. */
  async function expectInUse(path: string, why: RegExp, leave: () => Promise<void> | void): Promise<void> {
    expect(() => copy(path)).toThrow(why)
    expect(() => disksOf([{ path }], files, owner)).toThrow(why)
    await leave()
    expect(copy(path)).toMatchObject({ path })
    expect(disksOf([{ path }], files, owner)).toMatchObject([{ path }])
  }

  test.each([
    ['writes to', []],
    ['reads, and wants to stay as it is', ['-r']],
  ])('is not what a QEMU of somebody else %s', async (_, options) => {
    const path = raw(join(allowed, 'opened.raw'))
    const qemu = spawn('qemu-nbd', [...options, '-f', 'raw', '-k', join(directory, 'nbd'), '-t', path])
    onTestFinished(() => void qemu.kill())
    // From when it has opened it.
    await vi.waitFor(() => expect(() => copy(path)).toThrow(), { timeout: 20_000, interval: 5 })
    await expectInUse(path, /in use: another QEMU has it/, async () => {
      const ended = once(qemu, 'close')
      qemu.kill()
      await ended
    })
  })

  test('is not what a loop device stands on', async () => {
    const path = raw(join(allowed, 'looped.raw'))
    const device = execFileSync('losetup', ['-f', '--show', path], { encoding: 'utf8' }).trim()
    const detach = () => execFileSync('losetup', ['-d', device], { stdio: 'ignore' })
    await expectInUse(path, new RegExp(`in use: ${device} is made of it`), () => void detach()).catch(
      (error) => {
        detach()
        throw error
      },
    )
  })

  test('is not the copy that another standby writes', async () => {
    const path = raw(join(allowed, 'written.raw'))
    const other = new RawDisk(path, bytes, false)
    await expectInUse(path, /in use: another standby keeps a copy there/, async () => {
      await other.close()
      await vi.waitFor(() => copy(path))
    })
    const [one] = [new RawDisk(path, bytes, false)]
    expect(() => new RawDisk(path, bytes, false)).toThrow(/another standby keeps a copy there/)
    await one.close()
  })
})

describe('without one, a host keeps a disk', () => {
  const own = ownDiskPath(files, owner, 'data')

  test('in a file of its own', () => {
    expect(copy()).toMatchObject({ path: own, made: true })
  })

  test.each<[string, string, Partial<Disk>, boolean]>([
    ['where it kept it before', owner.id, {}, true],
    ['but not another guest of that name', 'another', {}, false],
    ['but not in an image whose tables QEMU keeps in mind', owner.id, { format: 'qcow2' }, false],
    ['but not a disk of another name', owner.id, { name: 'root' }, false],
  ])('%s', (_, id, disk, there) => {
    const path = raw(join(directory, 'before.raw'))
    guestWith('web', id, { path, ...disk })
    expect(copy()).toMatchObject(there ? { path } : { path: own, made: true })
  })

  test('in a file of its own, when the former one has another size now or is gone', () => {
    const path = raw(join(directory, 'before.raw'), 512)
    guestWith('web', owner.id, { path })
    expect(copy()).toMatchObject({ path: own })
    rmSync(path)
    expect(copy()).toMatchObject({ path: own })
  })
})
