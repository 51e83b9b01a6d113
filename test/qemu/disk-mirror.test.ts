/** A mirror that is lost is told of, whatever the guest did before: a real QEMU without a guest, whose disk is mirrored. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { DiskMirrors } from '../../src/qemu/disk-mirror.ts'
import type { GuestFiles } from '../../src/qemu/guest-files.ts'
import { PauseLease } from '../../src/qemu/pause-lease.ts'
import type { QmpEvent } from '../../src/qemu/qmp.ts'
import { BareQemu } from '../support/bare-qemu.ts'

const bytes = 2 ** 20
const shutdown = { guest: true, reason: 'guest-shutdown' }
const timestamp = { seconds: 0, microseconds: 0 }

async function mirrored() {
  const qemu = await BareQemu.start((directory) => {
    const path = join(directory, 'disk')
    execFileSync('qemu-img', ['create', '-q', path, String(bytes)])
    return ['-blockdev', `driver=file,node-name=subpage-disk-data,filename=${path}`]
  })
  const { directory, qmp } = qemu
  PauseLease.create(join(directory, 'lease'))
  const lease = PauseLease.open(join(directory, 'lease'))
  const files = {
    mirror: () => join(directory, 'mirror'),
    disksSocket: join(directory, 'nbd'),
  } as Partial<GuestFiles>
  const mirrors = new DiskMirrors({
    ...{ qmp, lease, files: files as GuestFiles, maps: { all: [undefined], directory } },
    disks: [{ name: 'data', bytes, bus: 'virtio', device: '', path: join(directory, 'disk'), format: 'raw' }],
  })
  const failures: string[] = []
  qmp.on('event', (event) => mirrors.heard(event))
  await mirrors.begin([{ hashes: new Uint8Array(16 * 16) }], ({ message }) => failures.push(message))
  await expect.poll(() => mirrors.complete).toBe(true)
  return {
    failures,
    heard: (event: string, data: QmpEvent['data'] = {}) => mirrors.heard({ event, data, timestamp }),
    /** As one whose endpoint is cut. */
    lose: () => qmp.run('block-job-cancel', { device: 'subpage-mirror-data', force: true }),
    cancelled: () => expect.poll(() => mirrors.complete).toBe(false),
    [Symbol.asyncDispose]: async () => {
      mirrors.close()
      lease.close()
      await qemu[Symbol.asyncDispose]()
    },
  }
}

const brokeOff = [expect.stringMatching(/^the copying of disk data broke off/)]

test('of a guest that runs', async () => {
  await using disk = await mirrored()
  await disk.lose()
  await disk.cancelled()
  expect(disk.failures).toEqual(brokeOff)
})

test('of one that has rebooted as libvirt does it: SHUTDOWN, then RESET and RESUME', async () => {
  await using disk = await mirrored()
  disk.heard('SHUTDOWN', shutdown)
  disk.heard('RESET')
  disk.heard('RESUME')
  await disk.lose()
  await disk.cancelled()
  expect(disk.failures).toEqual(brokeOff)
})

test('of one that is about to: once it runs on', async () => {
  await using disk = await mirrored()
  disk.heard('SHUTDOWN', shutdown)
  await disk.lose()
  await disk.cancelled()
  expect(disk.failures).toEqual([])
  disk.heard('RESET')
  expect(disk.failures).toEqual(brokeOff)
})

test('not of one that ends: QEMU cancels its jobs then', async () => {
  await using disk = await mirrored()
  disk.heard('SHUTDOWN', shutdown)
  await disk.lose()
  await disk.cancelled()
  expect(disk.failures).toEqual([])
})
