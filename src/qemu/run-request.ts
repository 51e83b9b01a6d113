/** What somebody asks for who starts a guest, and the machine that becomes of it. */

import { SubpageError } from '../errors.ts'
import { chooseAccel } from './accel.ts'
import type { DiskRequest } from './disk.ts'
import { type DiskOwner, disksOf } from './disk-places.ts'
import { assertFits, type FirmwareRequest } from './firmware.ts'
import type { GuestFiles } from './guest-files.ts'
import { memoryLayout } from './memory-backends.ts'
import { addressed, type NicRequest } from './nic.ts'
import { firmwareFor } from './nvram.ts'
import { takeDisks } from './option-disks.ts'
import { takeFirmware } from './option-firmware.ts'
import { readOptions, splitOptions } from './option-policy.ts'
import type { Machine } from './options.ts'
import type { PluginPart } from './plugin.ts'
import { type Certificate, screenOf, screenOptions, type Vnc } from './screen.ts'

export interface RunRequest {
  name: string
  ramBytes: number
  accel: 'auto' | 'kvm' | 'tcg'
  options: string[]
  /** Network cards on bridges of this host, and of the standby's. */
  nics?: NicRequest[]
  /** Writable disks; those of a size are made. */
  disks?: DiskRequest[]
  firmware?: FirmwareRequest
  /** Where its screen is shown. */
  vnc?: Vnc
  /** What QEMU's plugin notes of the guest's accesses. */
  track?: PluginPart[]
}

/** @throws SubpageError GUEST_UNPROTECTABLE, BAD_ARGUMENT, DISK_UNUSABLE */
export async function machineOf(
  request: RunRequest,
  { images, certificate }: { images: readonly string[]; certificate?: Certificate },
  files: GuestFiles,
  owner: DiskOwner,
): Promise<Machine> {
  const { name, ramBytes, nics = [], disks = [], track = [], vnc } = request
  const screen = vnc && screenOf(vnc, certificate)
  const sata = disks.flatMap(({ bus }, index) => (bus === 'sata' ? [index] : []))
  const { options: left, firmware: given } = takeFirmware(splitOptions(request.options))
  if (given && request.firmware)
    throw new SubpageError(
      'BAD_ARGUMENT',
      'the guest has firmware by --firmware and by -drive if=pflash: give one of them',
    )
  const firmware = request.firmware ?? given
  const taken = takeDisks(left, sata)
  const { type, options } = readOptions(taken.options, images)
  if (firmware) assertFits(firmware.kind, type, options)
  const { backends } = memoryLayout(type, options, ramBytes)
  return {
    type,
    ramBytes,
    ...(backends && { backends }),
    accel: await chooseAccel(request),
    options: screen ? [...options, ...screenOptions(options)] : options,
    nics: addressed(name, nics),
    disks: disksOf([...disks, ...taken.disks], files, owner),
    ...(firmware && { firmware: firmwareFor(firmware, files, owner) }),
    ...(screen && { vnc: screen }),
    ...(track.length > 0 && { track: [...new Set(track)] }),
  }
}
