/**
 * The payloads of frames that are not deltas: JSON checked against a schema where they are rare, fixed binary where
 * they come with every checkpoint.
 */
import { type Static, type TSchema, Type } from '#typebox'
import { Value } from '#typebox/value'
import { printable, SubpageError } from '../errors.ts'
import { SharedSettings } from './protection-settings.ts'

/** Raised by every change that an older peer would misread. */
export const protocolVersion = 4

/** A word or a line of another host: shown to people, so without control characters. */
const line = Type.String({ maxLength: 255, pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]*$' })

/** Empty: none. */
const lineage = Type.String({ pattern: '^([0-9a-f]{32})?$' })

const identity = Type.Object({
  pid: Type.Integer({ minimum: 1, maximum: 2 ** 22 }),
  startTime: Type.String(),
})

export const Hello = Type.Object({
  protocol: Type.Integer(),
  release: line,
  guest: Type.Object({
    id: Type.String({ pattern: '^[0-9a-f-]{36}$' }),
    name: line,
    memoryBytes: Type.Integer({ minimum: 4096, multipleOf: 4096 }),
    diskBytes: Type.Array(Type.Integer({ minimum: 512, multipleOf: 512 }), { maxItems: 16 }),
    hypervisor: Type.Record(Type.String(), Type.Unknown()),
  }),
  /** Where the guest runs; lets a standby on the same machine see for itself whether its process is gone. */
  source: Type.Object({
    host: line,
    /** Unique name of the host, as the arbiter knows it. */
    claimant: line,
    /** Where the host can be reached, for protection the other way round after a failover. */
    address: line,
    bootId: line,
    process: identity,
    /** By which a standby on the same machine proves that it sees this host's processes (source-sight.ts). */
    supervisor: Type.Optional(
      Type.Object({
        process: identity,
        pidNamespace: line,
        token: Type.Object({ descriptor: Type.Integer({ minimum: 0 }), name: line }),
      }),
    ),
  }),
  generation: Type.Integer({ minimum: 1 }),
  /** Of the disks, in their order (disk-lineages.ts); absent: this release knows of none. */
  lineages: Type.Optional(Type.Array(lineage, { maxItems: 16 })),
  /** Left with the primary's arbiter; absent when it has none. */
  mark: Type.Optional(line),
  settings: SharedSettings,
})
export type Hello = Static<typeof Hello>

const DiskCopy = Type.Object({
  path: Type.String({ maxLength: 4096 }),
  /** By subpage: it may be discarded. */
  made: Type.Boolean(),
  /** Absent: this release knows of none, or the disk has no map. */
  lineage: Type.Optional(lineage),
})
export type DiskCopy = Static<typeof DiskCopy>

export const Welcome = Type.Object({
  release: line,
  /** Unique name of the standby's host. */
  claimant: line,
  /** Its name, for people; absent: this release does not say. */
  host: Type.Optional(line),
  imagePages: Type.Integer(),
  /** Whether the image may hold pages of this guest already, so that comparing hashes pays. */
  image: Type.Union([Type.Literal('fresh'), Type.Literal('held')]),
  /** The image is all zeros, so pages that are need not be sent at first; absent: it is not, or this release does not say. */
  blank: Type.Optional(Type.Boolean()),
  /** Whether both hosts see the same arbiter. */
  arbitrated: Type.Boolean(),
  /** Where it keeps its copies of the disks, for people. */
  disks: Type.Array(DiskCopy, { maxItems: 16 }),
  /** What its machine is made of (WaitingGuest); absent: this release does not say. */
  parts: Type.Optional(Type.Array(Type.String({ maxLength: 4200 }), { maxItems: 2048 })),
})
export type Welcome = Static<typeof Welcome>

export const Refusal = Type.Object({
  code: Type.String(),
  message: Type.String({ maxLength: 4096 }),
  /** Of the guest, on that host. */
  copy: Type.Optional(
    Type.Object({ claimant: line, generation: Type.Integer({ minimum: 1 }), runs: Type.Boolean() }),
  ),
})
export type Refusal = Static<typeof Refusal>

export const Ended = Type.Object({
  how: Type.Union([
    Type.Literal('died'),
    Type.Literal('powered-off'),
    Type.Literal('stopped'),
    Type.Literal('panicked'),
    Type.Literal('superseded'),
  ]),
  detail: Type.String({ maxLength: 4096 }),
})

/** Whatever a peer says may be shown on a terminal. */
const harmless = (_key: string, value: unknown) => (typeof value === 'string' ? printable(value) : value)

/** @throws SubpageError FRAME_MALFORMED */
export function readJson<T extends TSchema>(schema: T, payload: Uint8Array, what: string): Static<T> {
  try {
    return Value.Parse(schema, JSON.parse(Buffer.from(payload).toString('utf8'), harmless))
  } catch (cause) {
    throw new SubpageError('FRAME_MALFORMED', `${what} has a wrong form`, { cause })
  }
}

/** Epoch of `unprotect` when the copies of the disks go, too. */
export const alsoDisks = 1

export function brokeProtocol(what: string): SubpageError {
  return new SubpageError('FRAME_MALFORMED', `the primary broke the protocol: ${what}`)
}

/** Chunks of a disk that `askHashes` is about: first u32, count u32, little endian. */
export function encodeRange(first: number, count: number): Uint8Array {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32LE(first, 0)
  bytes.writeUInt32LE(count, 4)
  return bytes
}

/** @throws SubpageError FRAME_MALFORMED */
export function decodeRange(payload: Uint8Array): { first: number; count: number } {
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength)
  if (bytes.length !== 8) throw brokeProtocol(`a range of chunks of ${bytes.length} bytes`)
  return { first: bytes.readUInt32LE(0), count: bytes.readUInt32LE(4) }
}

/** Closes a checkpoint: what the standby must have received before it may acknowledge. */
export interface Commit {
  /** Frames of type `pages`, `raw` and `reduced` in this checkpoint. */
  deltas: number
  /** Sum of their payloads. */
  deltaBytes: number
  /** Length of the guest's console output at the checkpoint. */
  consoleBytes: number
  /** Of the primary's line dictionary after the last delta; 0 when it has none. */
  digest: bigint
  /** Frames of type `disk` in this checkpoint. */
  diskFrames: number
  /** Somebody has stopped the guest: whoever takes it over leaves it so. */
  suspended: boolean
}

const commitBytes = 36

/** deltas u32 · diskFrames u32 · deltaBytes u64 · consoleBytes u64 · digest u64 · suspended u32, 0 or 1; little endian. */
export function encodeCommit(commit: Commit): Uint8Array {
  const bytes = Buffer.alloc(commitBytes)
  bytes.writeUInt32LE(commit.deltas, 0)
  bytes.writeUInt32LE(commit.diskFrames, 4)
  bytes.writeBigUInt64LE(BigInt(commit.deltaBytes), 8)
  bytes.writeBigUInt64LE(BigInt(commit.consoleBytes), 16)
  bytes.writeBigUInt64LE(commit.digest, 24)
  bytes.writeUInt32LE(commit.suspended ? 1 : 0, 32)
  return bytes
}

/** @throws SubpageError FRAME_MALFORMED */
export function decodeCommit(payload: Uint8Array): Commit {
  if (payload.length !== commitBytes)
    throw new SubpageError('FRAME_MALFORMED', `a commit has ${payload.length} bytes, expected ${commitBytes}`)
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.length)
  const suspended = bytes.readUInt32LE(32)
  const commit = {
    deltas: bytes.readUInt32LE(0),
    deltaBytes: Number(bytes.readBigUInt64LE(8)),
    consoleBytes: Number(bytes.readBigUInt64LE(16)),
    digest: bytes.readBigUInt64LE(24),
    diskFrames: bytes.readUInt32LE(4),
    suspended: suspended === 1,
  }
  const sizes = [commit.deltaBytes, commit.consoleBytes]
  if (!sizes.every(Number.isSafeInteger) || suspended > 1)
    throw new SubpageError('FRAME_MALFORMED', 'a commit has a field out of range')
  return commit
}
