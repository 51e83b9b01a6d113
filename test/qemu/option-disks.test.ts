/** Writable disks among the options after `--`: what becomes a protected disk, and what is refused, with its reason. */
import { mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import type { Disk } from '../../src/qemu/disk.ts'
import { diskOptions, withNodes } from '../../src/qemu/disk.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { takeDisks } from '../../src/qemu/option-disks.ts'
import { readOptions, splitOptions } from '../../src/qemu/option-policy.ts'
import { machineOf } from '../../src/qemu/run-request.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-option-disks-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const file = (name: string) => {
  const path = join(directory, name)
  writeFileSync(path, '')
  truncateSync(path, 2 ** 20)
  return path
}
const path = file('a.raw')
const other = file('b.raw')

const take = (...options: string[]) => takeDisks(splitOptions(options), [])
const machine = (...options: string[]) =>
  machineOf(
    { name: 'web', ramBytes: 2 ** 24, accel: 'tcg', options },
    { images: [directory] },
    guestFiles(join(directory, 'state'), 'web'),
    { id: '6f9619ff-8b86-4d01-b42d-00cf4fc964ff', name: 'web' },
  )

describe('what becomes a disk', () => {
  test.each<[string, string[], object, string[]]>([
    [
      'a drive on virtio',
      ['-drive', `file=${path},if=virtio,format=raw,cache=none,aio=native,discard=unmap,werror=stop`],
      { path, bus: 'virtio', format: 'raw', cache: 'none', aio: 'native', discard: true, werror: 'stop' },
      [],
    ],
    [
      'a drive with a device',
      ['-device', 'virtio-blk-pci,drive=d0,serial=x', '-drive', `file=${path},if=none,id=d0`],
      { path, name: 'd0', drive: 'd0' },
      ['-device', 'virtio-blk-pci,drive=d0,serial=x'],
    ],
    [
      'one with a name that no disk can have, and errors and a cache that the device is told of',
      [
        ...['-drive', `${path},if=none,id=drive-virtio-disk0,cache=directsync,werror=stop,rerror=report`],
        ...['-device', 'scsi-hd,drive=drive-virtio-disk0,rerror=stop'],
      ],
      { path, cache: 'directsync', drive: 'drive-virtio-disk0' },
      ['-device', 'scsi-hd,drive=drive-virtio-disk0,rerror=stop,write-cache=off,werror=stop'],
    ],
    [
      'a node over the node of a file',
      [
        ...['-blockdev', `driver=file,node-name=f0,filename=${path},aio=io_uring,cache.direct=on`],
        ...['-blockdev', 'driver=raw,node-name=d0,file=f0,discard=unmap'],
        ...['-device', 'ide-hd,drive=d0'],
      ],
      { path, name: 'd0', drive: 'd0', format: 'raw', cache: 'none', aio: 'io_uring', discard: true },
      ['-device', 'ide-hd,drive=d0'],
    ],
    [
      'a node with its file',
      [
        ...['-blockdev', `qcow2,node-name=d0,file.driver=file,file.filename=${path}`],
        ...['-object', 'iothread,id=t', '-device', 'virtio-blk-pci,drive=d0,iothread=t'],
      ],
      { path, name: 'd0', drive: 'd0', format: 'qcow2', iothread: true },
      ['-object', 'iothread,id=t', '-device', 'virtio-blk-pci,drive=d0,iothread=t'],
    ],
    [
      'a file that stands alone, on a controller with a thread',
      [
        ...['-blockdev', `driver=file,node-name=d0,filename=${path}`],
        ...[
          '-object',
          'iothread,id=t',
          '-device',
          'virtio-scsi-pci,iothread=t',
          '-device',
          'scsi-hd,drive=d0',
        ],
      ],
      { path, name: 'd0', drive: 'd0', format: 'raw', iothread: true },
      ['-object', 'iothread,id=t', '-device', 'virtio-scsi-pci,iothread=t', '-device', 'scsi-hd,drive=d0'],
    ],
  ])('%s', (_, options, disk, left) => expect(take(...options)).toEqual({ disks: [disk], options: left }))

  test('drives on IDE have the places that QEMU gives them', () => {
    const cd = `file=${other},media=cdrom`
    const q35 = take('-drive', `file=${path}`, '-drive', cd, '-drive', `file=${path}.2,index=4`)
    expect(q35.options).toEqual([
      ...['-drive', `${cd},index=1`],
      ...['-device', 'ide-hd,bus=ide.0,unit=0,drive=ide0', '-device', 'ide-hd,bus=ide.4,unit=0,drive=ide4'],
    ])
    expect(q35.disks.map(({ drive }) => drive)).toEqual(['ide0', 'ide4'])
    const pc = take('-machine', 'pc', '-cdrom', other, '-drive', `file=${path},cache=writethrough,index=3`)
    expect(pc.options.slice(-1)).toEqual(['ide-hd,bus=ide.1,unit=1,drive=ide3,write-cache=off'])
    expect(() => take('-drive', `file=${path},index=2`, '-cdrom', other, '-drive', `${cd},index=2`)).toThrow(
      /no free place/,
    )
  })

  test('what only reads stays an option', () => {
    const options = ['-drive', `file=${path},readonly=on`, '-append', '-drive']
    expect(take(...options)).toEqual({ disks: [], options })
  })

  test('the guest has them by the devices of its options, on nodes of ours', async () => {
    const { disks, options } = await machine(
      ...['-drive', `file=${path},if=none,id=d0`, '-device', 'virtio-blk-pci,drive=d0'],
    )
    expect(disks).toEqual([
      { name: 'd0', bus: 'virtio', drive: 'd0', path, bytes: 2 ** 20, format: 'raw' } satisfies Disk,
    ])
    expect(withNodes(options, disks)).toEqual(['-device', 'virtio-blk-pci,drive=subpage-disk-d0'])
    expect(diskOptions(disks)).toEqual(['-blockdev', expect.stringMatching(/node-name=subpage-disk-d0,/)])
    // The other host is told of the device by the name that its policy lets pass.
    expect(readOptions(options).options).toEqual(options)
  })

  test('one file is not two disks', async () => {
    const link = join(directory, 'link')
    symlinkSync(path, link)
    const twice = machine('-drive', `file=${path},if=virtio`, '-drive', `file=${link},if=virtio`)
    await expect(twice).rejects.toThrow(/one file cannot be two disks/)
    expect(() => take('-drive', `file=${path},if=virtio`, '-cdrom', link)).toThrow(/reads the same file/)
  })
})

const device = ['-device', 'virtio-blk-pci,drive=d0']
const node = `node-name=d0`

describe('what is refused', () => {
  test.each<[string[], RegExp]>([
    [['-drive', 'file=nbd:192.0.2.1:10809,if=virtio'], /on the network, and both hosts would share it/],
    [['-drive', 'file=rbd:pool/image,if=virtio'], /on the network/],
    [['-drive', 'file=https://example.org/x,if=virtio'], /on the network/],
    [['-drive', 'driver=iscsi,portal=192.0.2.1'], /on the network/],
    [['-blockdev', `driver=nbd,${node},host=192.0.2.1`, ...device], /on the network/],
    [['-blockdev', `driver=raw,${node},file.driver=gluster`, ...device], /on the network/],
    [
      ['-blockdev', `driver=virtio-blk-vhost-user,${node},path=/x`, ...device],
      /writes guest RAM from outside/,
    ],
    [['-blockdev', `driver=nvme,${node}`, ...device], /writes guest RAM from outside/],
    [['-blockdev', `driver=null-co,${node}`, ...device], /keeps nothing/],
    [['-blockdev', `driver=vmdk,${node},file.driver=file,file.filename=/x`, ...device], /qemu-img convert/],
    [['-blockdev', `driver=quorum,${node}`, ...device], /raw or qcow2/],
    [['-drive', 'file=fat:rw:/etc'], /keeps nothing/],
    [['-drive', 'file=json:{}'], /key=value/],
    [['-drive', 'file=web.raw'], /whole path/],
    [['-drive', 'if=virtio'], /names no file/],
    [['-blockdev', `driver=raw,${node}`, ...device], /names no file/],
    [['-drive', `file=${path},snapshot=on`], /lost with it/],
    [['-drive', `file=${path},cache=unsafe`], /forgets the guest's flushes/],
    [['-drive', `file=${path},if=scsi`], /bus=scsi/],
    [['-drive', `file=${path},if=pflash`], /two drives with if=pflash/],
    [['-drive', `file=${path},format=vmdk`], /format=vmdk/],
    [['-drive', `file=${path},file.locking=off`], /with its locks off/],
    [['-drive', `file=${path},werror=ignore`], /would not be noticed/],
    [['-drive', `file=${path},iops=100`], /iops= is not on the list/],
    [['-drive', `file=${path},file=${other}`], /file= twice/],
    [['-drive', `file=${path},if=none`], /give it a name/],
    [['-drive', `file=${path},if=none,id=d0`], /no -device has it/],
    [['-drive', `file=${path},if=none,id=d0`, ...device, ...device], /two devices have it/],
    [['-drive', `file=${path},if=none,id=d0`, '-device', 'scsi-hd,drive=d0,share-rw=on'], /somebody else/],
    [['-drive', `file=${path},if=none,id=d0`, '-device', 'scsi-hd,drive=d0,rerror=ignore'], /be noticed/],
    [['-drive', `file=${path},if=none,id=d0`, '-drive', `file=${other},if=none,id=d0`], /have the name d0/],
    [['-blockdev', `driver=raw,${node},file=f0`, ...device], /no -blockdev of a file/],
    [['-blockdev', `driver=file,filename=${path},${node},locking=off`, ...device], /with its locks off/],
    [
      [
        ...['-blockdev', `driver=file,filename=${path},node-name=f0`],
        ...['-blockdev', 'driver=raw,node-name=d0,file=f0', '-blockdev', 'driver=raw,node-name=d1,file=f0'],
      ],
      /two disks have the file f0/,
    ],
    [['-blockdev', '{"driver":"file"}'], /key=value/],
    [['-device', 'vhost-user-blk-pci,chardev=c'], /outside QEMU/],
  ])('%j', async (options, why) => {
    await expect(machine(...options)).rejects.toMatchObject({
      code: 'GUEST_UNPROTECTABLE',
      message: expect.stringMatching(why),
    })
  })

  test('another host cannot make a guest write to a file of ours', () => {
    expect(() => readOptions(['-drive', `file=${path},if=virtio`], [directory])).toThrow(/another host/)
  })
})
