/**
 * The disks of a machine that somebody else starts, as its QEMU has them. What QEMU calls them may differ between hosts and releases of the
 * manager; the names of their devices are part of the machine.
 */
import { SubpageError } from '../errors.ts'
import { assertThreadsHold, type Disk } from './disk.ts'
import type { Qmp } from './qmp.ts'

interface Block {
  /** Name or path of the device. */
  qdev?: string
  inserted?: { 'node-name'?: string; ro: boolean; image: { 'virtual-size': number } }
}

/**
 * Finds what each disk is called, and how large it is.
 * @param known whether the sizes must be those that are given
 * @throws SubpageError DISK_UNUSABLE, GUEST_UNPROTECTABLE
 */
export async function settleDisks(qmp: Qmp, disks: readonly Disk[], known: boolean): Promise<Disk[]> {
  if (disks.length === 0) return []
  assertThreadsHold(qmp.version, disks)
  const blocks = await qmp.run<Block[]>('query-block')
  const settled = disks.map((disk) => settle(disk, blocks, known))
  const strange = blocks.find(
    ({ qdev, inserted }) =>
      inserted?.ro === false && !disks.some(({ device }) => isOf(qdev, device)) && !isFlash(qdev),
  )
  if (strange)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `QEMU has a writable disk ${strange.qdev} that is not in the description of the machine`,
    )
  return settled
}

function settle(disk: Disk, blocks: Block[], known: boolean): Disk {
  const inserted = blocks.find(({ qdev }) => isOf(qdev, disk.device))?.inserted
  const [node, bytes] = [inserted?.['node-name'], inserted?.image['virtual-size']]
  if (node === undefined || bytes === undefined)
    throw new SubpageError('DISK_UNUSABLE', `QEMU has no disk ${disk.name} (device ${disk.device})`)
  if (known && bytes !== disk.bytes)
    throw new SubpageError(
      'DISK_UNUSABLE',
      `${disk.path} has ${bytes} bytes in QEMU, and the disk ${disk.name} has ${disk.bytes}`,
    )
  return { ...disk, node, bytes }
}

/** Virtio disks are named by a path in QEMU's tree of objects. */
const isOf = (qdev: string | undefined, device: string | undefined): boolean =>
  device !== undefined && (qdev === device || qdev === `/machine/peripheral/${device}/virtio-backend`)

/** Variables of the firmware are memory (firmware.ts). */
const isFlash = (qdev: string | undefined): boolean => /^\/machine\/system\.flash[01]$/.test(qdev ?? '')
