/**
 * The machine as the primary describes it to the standby. It decides what is executed there, so it is checked as if a
 * stranger had sent it: form first, then the very rules that `run` has.
 */
import { type Static, Type } from '#typebox'
import { Value } from '#typebox/value'
import { SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import type { GuestDescription } from '../replication/guest.ts'
import { memoryBytes } from './aux-ram.ts'
import { DiskShape } from './disk.ts'
import { copyOf } from './disk-places.ts'
import { assertFits, FirmwareKind } from './firmware.ts'
import type { GuestFiles } from './guest-files.ts'
import { imageDirectories } from './image-files.ts'
import { Managed } from './managed.ts'
import { memoryLayout } from './memory-backends.ts'
import { Nic } from './nic.ts'
import { firmwareOfCopy } from './nvram.ts'
import { readOptions } from './option-policy.ts'
import type { Machine } from './options.ts'
import { type Certificate, screenOf, Vnc } from './screen.ts'

const DescribedDisk = Type.Object(
  {
    ...DiskShape.properties,
    /** The file or device of this host that the operator wants for it. */
    place: Type.Optional(Type.String({ maxLength: 4096 })),
  },
  { additionalProperties: false },
)

const Hypervisor = Type.Object(
  {
    /** The primary's QEMU; only compared with ours. */
    qemu: Type.String({ maxLength: 200 }),
    ramBytes: Type.Integer({ minimum: 4096, multipleOf: 4096 }),
    /** Of one that is managed; else they are in its options. */
    backends: Type.Optional(
      Type.Array(Type.Integer({ minimum: 4096, multipleOf: 4096 }), {
        maxItems: limits.memoryBackends.value,
      }),
    ),
    aux: Type.Array(Type.Integer({ minimum: 4096, multipleOf: 4096 }), {
      maxItems: limits.memoryBlocks.value,
    }),
    type: Type.String({ maxLength: 1000 }),
    accel: Type.Union([Type.Literal('kvm'), Type.Literal('tcg')]),
    options: Type.Array(Type.String()),
    nics: Type.Array(Nic, { maxItems: limits.networkCards.value }),
    vnc: Type.Optional(Vnc),
    firmware: Type.Optional(FirmwareKind),
    disks: Type.Array(DescribedDisk, { maxItems: limits.disks.value }),
    managed: Type.Optional(Managed),
  },
  { additionalProperties: false },
)

export interface DescribedMachine {
  version: string
  machine: Machine
}

/** Of this host: what a peer may name paths in, and what a guest has of the host itself. */
export interface HostPlaces {
  /** To read kernels and disks from. */
  images: readonly string[]
  /** For its copies of disks. */
  disks: readonly string[]
  /** By which other hosts know it; undefined: it speaks with none. */
  certificate?: Certificate
}

/**
 * @param files of the guest on this host
 * @throws SubpageError PEER_MISMATCH, GUEST_UNPROTECTABLE, DISK_UNUSABLE
 */
export function readDescription(
  { id, name, memoryBytes: described, hypervisor }: GuestDescription,
  files: GuestFiles,
  places: HostPlaces = { images: imageDirectories, disks: [] },
): DescribedMachine {
  if (!Value.Check(Hypervisor, hypervisor))
    throw new SubpageError(
      'PEER_MISMATCH',
      'the primary describes its guest in a way that this host does not know: install the same release on both',
    )
  const {
    qemu: version,
    ramBytes,
    backends: managedBackends,
    aux,
    accel,
    nics,
    disks: shapes,
    vnc,
    managed,
    firmware: kind,
    ...given
  }: Static<typeof Hypervisor> = hypervisor
  const { type, options } = readOptions(['-machine', given.type, ...given.options], places.images)
  const disks = shapes.map((shape) => copyOf(shape, files, { id, name }, places.disks))
  if (new Set(disks.map(({ path }) => path)).size < disks.length)
    throw new SubpageError('PEER_MISMATCH', 'the primary describes two disks of one name, or in one place')
  if (vnc?.tls && !places.certificate)
    throw new SubpageError(
      'PEER_MISMATCH',
      "the guest has a screen that is encrypted with the certificate of its host, and the standby's agent has none: it needs --tls-ca, --tls-cert and --tls-key",
    )
  const screen = vnc && screenOf(vnc, places.certificate)
  if (kind) assertFits(kind, type, options)
  const backends = managed ? managedBackends : memoryLayout(type, options, ramBytes).backends
  const firmware = kind && firmwareOfCopy(kind, files, { id, name })
  if (managed && [nics, options].some(({ length }) => length > 0))
    throw new SubpageError('PEER_MISMATCH', 'the primary describes one machine in two ways')
  const machine = {
    type,
    ramBytes,
    ...(backends && { backends }),
    accel,
    options,
    nics,
    disks,
    aux,
    ...(firmware && { firmware }),
    ...(screen && { vnc: screen }),
    ...(managed && { managed }),
  }
  const summed = backends?.reduce((sum, bytes) => sum + bytes, 0) ?? ramBytes
  if (memoryBytes(machine) !== described || summed !== ramBytes)
    throw new SubpageError(
      'PEER_MISMATCH',
      'the primary describes a guest whose memory is not the sum of its blocks',
    )
  return { version, machine }
}

/** What a standby is told, with the places that the operator wants on its host. @param places by name of disk */
export function withPlaces(
  { hypervisor, ...description }: GuestDescription,
  places: Readonly<Record<string, string>> = {},
): GuestDescription {
  const disks = (hypervisor.disks as DiskShape[]).map((shape) => {
    const place = Object.hasOwn(places, shape.name) ? places[shape.name] : undefined
    return { ...shape, ...(place !== undefined && { place }) }
  })
  return { ...description, hypervisor: { ...hypervisor, disks } }
}
