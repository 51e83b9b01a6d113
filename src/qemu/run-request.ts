/** What somebody asks for who starts a guest, and the machine that becomes of it. */

import { chooseAccel } from './accel.ts'
import type { DiskRequest } from './disk.ts'
import { type DiskOwner, disksOf } from './disk-places.ts'
import type { GuestFiles } from './guest-files.ts'
import { addressed, type NicRequest } from './nic.ts'
import { takeDisks } from './option-disks.ts'
import { readOptions, splitOptions } from './option-policy.ts'
import type { Machine } from './options.ts'
import type { PluginPart } from './plugin.ts'
import { assertGuarded, screenOptions, type Vnc } from './screen.ts'

export interface RunRequest {
  name: string
  ramBytes: number
  accel: 'auto' | 'kvm' | 'tcg'
  options: string[]
  /** Network cards on bridges of this host, and of the standby's. */
  nics?: NicRequest[]
  /** Writable disks; those of a size are made. */
  disks?: DiskRequest[]
  /** Where its screen is shown. */
  vnc?: Vnc
  /** What QEMU's plugin notes of the guest's accesses. */
  track?: PluginPart[]
}

/** @throws SubpageError GUEST_UNPROTECTABLE, BAD_ARGUMENT, DISK_UNUSABLE */
export async function machineOf(
  request: RunRequest,
  images: readonly string[],
  files: GuestFiles,
  owner: DiskOwner,
): Promise<Machine> {
  const { name, ramBytes, nics = [], disks = [], track = [], vnc } = request
  if (vnc) assertGuarded(vnc)
  const sata = disks.flatMap(({ bus }, index) => (bus === 'sata' ? [index] : []))
  const taken = takeDisks(splitOptions(request.options), sata)
  const { type, options } = readOptions(taken.options, images)
  return {
    type,
    ramBytes,
    accel: await chooseAccel(request),
    options: vnc ? [...options, ...screenOptions(options)] : options,
    nics: addressed(name, nics),
    disks: disksOf([...disks, ...taken.disks], files, owner),
    ...(vnc && { vnc }),
    ...(track.length > 0 && { track: [...new Set(track)] }),
  }
}
