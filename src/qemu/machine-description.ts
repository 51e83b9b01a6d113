/**
 * The machine as the primary describes it to the standby. It decides what is executed there, so it is checked as if a
 * stranger had sent it: form first, then the very rules that `run` has.
 */
import { type Static, Type } from 'typebox'
import { Value } from 'typebox/value'
import { SubpageError } from '../errors.ts'
import type { GuestDescription } from '../replication/guest.ts'
import { type Disk, DiskShape, disksMax, ownDiskPath } from './disk.ts'
import type { GuestFiles } from './guest-files.ts'
import { imageDirectories } from './image-files.ts'
import { Nic, nicsMax } from './nic.ts'
import { readOptions } from './option-policy.ts'
import type { Machine } from './options.ts'

const Hypervisor = Type.Object(
  {
    /** The primary's QEMU; only compared with ours. */
    qemu: Type.String({ maxLength: 200 }),
    type: Type.String({ maxLength: 1000 }),
    accel: Type.Union([Type.Literal('kvm'), Type.Literal('tcg')]),
    options: Type.Array(Type.String()),
    nics: Type.Array(Nic, { maxItems: nicsMax }),
    disks: Type.Array(DiskShape, { maxItems: disksMax }),
  },
  { additionalProperties: false },
)

export interface DescribedMachine {
  version: string
  machine: Machine
}

/**
 * @param files of the guest on this host, which keeps its disks in files of its own
 * @param images the directories that files must lie in, of this host
 * @throws SubpageError PEER_MISMATCH, GUEST_UNPROTECTABLE
 */
export function readDescription(
  { id, name, ramBytes, hypervisor }: GuestDescription,
  files: GuestFiles,
  images: readonly string[] = imageDirectories,
): DescribedMachine {
  if (!Value.Check(Hypervisor, hypervisor))
    throw new SubpageError(
      'PEER_MISMATCH',
      'the primary describes its guest in a way that this host does not know: install the same release on both',
    )
  const { qemu: version, accel, nics, disks: shapes, ...given }: Static<typeof Hypervisor> = hypervisor
  const { type, options } = readOptions(['-machine', given.type, ...given.options], images)
  const disks = shapes.map(
    (shape): Disk => ({
      ...shape,
      path: ownDiskPath(files, { id, name }, shape.name),
      format: 'raw',
      made: true,
    }),
  )
  if (new Set(disks.map(({ path }) => path)).size < disks.length)
    throw new SubpageError('PEER_MISMATCH', 'the primary describes two disks of one name')
  return { version, machine: { type, ramBytes, accel, options, nics, disks } }
}
