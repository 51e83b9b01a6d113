/** What an agent says of itself and its guests, and a supervisor of its one: the schema of `status`. */

import { type Static, Type } from '#typebox'
import { shadowKinds } from '../delta/shadow.ts'
import { type ErrorCode, errorTable } from '../errors.ts'
import { type Operation, operationKinds } from '../replication/operations.ts'
import { durabilities } from '../replication/sending.ts'
import type { MemoryVerification } from '../replication/verify.ts'
import { DiskStatus } from './disk-status.ts'
import { Epochs, Last, Nullable, Progress } from './status-figures.ts'

export interface Screenshot {
  /** A picture in base64. */
  png: string
}

export const GuestStatus = Type.Object({
  name: Type.String(),
  role: Type.Union([Type.Literal('Primary'), Type.Literal('Standby'), Type.Literal('Alone')]),
  state: Type.String(),
  reason: Type.String(),
  reasonCode: Nullable(
    Type.Enum(Object.keys(errorTable) as ErrorCode[], {
      description: 'what reason says, for programs: a code of errors.md, which says what to do',
    }),
  ),
  peer: Nullable(Type.String({ description: 'address of the other host, as commands take it' })),
  peerHost: Nullable(
    Type.String({
      description: 'name of the other host; null while it is not known, and for a host of an older release',
    }),
  ),
  ramBytes: Type.Integer(),
  auxBytes: Type.Integer({ description: 'memory of its devices and firmware, protected with its RAM' }),
  accel: Type.String(),
  qemu: Type.String(),
  pid: Nullable(Type.Integer()),
  console: Type.String({ description: 'file with the output of the serial console' }),
  consoleSocket: Type.String({ description: 'of the serial console, for one at a time' }),
  suspended: Type.Boolean({
    description: 'somebody else has stopped it (virsh suspend), and it stands still until they let it run',
  }),
  devicesDiffer: Type.Boolean({
    description:
      'it has other devices, memory or media than its standby had, and goes on without one until that is taken back',
  }),
  firmware: Nullable(
    Type.Object({
      kind: Type.String({ description: 'uefi or secure-boot' }),
      nvram: Type.String({ description: 'the file with its variables, on this host' }),
    }),
  ),
  vnc: Nullable(
    Type.Object(
      {
        host: Type.String(),
        port: Type.Integer(),
        encrypted: Type.Boolean({ description: 'with the certificate of this host' }),
      },
      { description: 'where its screen is shown, on this host' },
    ),
  ),
  /** Its writable ones. */
  disks: Type.Array(DiskStatus),
  tracker: Nullable(Type.String()),
  codec: Nullable(Type.String()),
  epochMs: Nullable(Type.Number()),
  /** Not null: the epoch is automatic, and pauses may take this share of time. */
  pauseShareMax: Nullable(Type.Number()),
  /** Not null: how long what the guest sends may wait, on average; `epochs.cost.outputWaitMs` estimates how long it does. */
  latencyMs: Nullable(Type.Number()),
  /** `held`: what the guest sends waits for the commit. */
  outputs: Nullable(Type.Union([Type.Literal('held'), Type.Literal('free')])),
  /** What a checkpoint outlasts, of a guest with disks. */
  durability: Nullable(Type.Enum([...durabilities])),
  /** Of a standby: writes to disks of the coming checkpoint that are too many for its memory. */
  spill: Nullable(
    Type.Object({
      bytes: Type.Integer({ description: 'in its file now' }),
      totalBytes: Type.Integer({ description: 'that ever were, since the standby began' }),
    }),
  ),
  /** While the standby is being brought up to the guest; the guest runs meanwhile. */
  seeding: Nullable(Progress),
  /** What somebody has asked for and waits for; `cancel` ends it. */
  operation: Nullable(
    Type.Object({
      kind: Type.Enum([...operationKinds]),
      cancellable: Type.Boolean({ description: 'a switchover is not once the guest stands still for it' }),
      progress: Nullable(Progress),
    }),
  ),
  /** What `verify` has found last, in this protection. */
  verified: Nullable(
    Type.Object({ at: Type.Integer({ description: 'milliseconds since 1970' }), equal: Type.Boolean() }),
  ),
  /** What protecting takes of this host's memory. */
  memory: Nullable(
    Type.Object({
      shadow: Type.Enum([...shadowKinds]),
      shadowBytes: Type.Integer({ description: 'at most; memory that is all zeros takes none' }),
      reducerBytes: Type.Integer({ description: 'dictionary, and indexes of what the standby holds' }),
    }),
  ),
  /** Pages that change in most epochs: not armed, and always compared; null where every page is armed. */
  hotPages: Nullable(
    Type.Object({
      now: Type.Integer({ description: 'pages that the next harvest does not arm' }),
      faultsSaved: Type.Integer({ description: 'writes that would have cost the guest a fault' }),
      comparisons: Type.Integer({ description: 'of pages that had not changed: time of the pauses' }),
    }),
  ),
  /** Whether a copy that another host has taken over can be kept from speaking, and how many packets that has cost. */
  fence: Nullable(Type.Object({ on: Type.Boolean(), silenced: Type.Integer() })),
  shimMissing: Nullable(
    Type.String({
      description: 'the library that tracks, guards and fences was not loaded into QEMU: what follows',
    }),
  ),
  generation: Type.Integer(),
  /** Null while it does not run, or does not answer. */
  supervisor: Nullable(
    Type.Object({
      process: Type.Integer({ description: 'its pid' }),
      ownBytes: Type.Integer({ description: 'its memory: neither guest RAM and image nor shadow' }),
      loopDelayMs: Type.Number({ description: 'longest time since it began that its event loop was late' }),
    }),
  ),
  /** Who decides when the two hosts have lost each other; null: only people, or nobody while there is one copy only. */
  arbiter: Nullable(Type.String()),
  arbiterTrouble: Nullable(
    Type.String({
      description: 'why the arbiter cannot decide just now; neither host goes on by itself then',
    }),
  ),
  epochs: Nullable(Epochs),
  last: Nullable(Last),
  /** The newest checkpoint that is safe on the standby. */
  committed: Nullable(Type.Object({ epoch: Type.Integer(), consoleBytes: Type.Integer() })),
  takeover: Nullable(
    Type.Object({
      /** Milliseconds since 1970, when the guest ran here. */
      at: Type.Number(),
      ms: Type.Number(),
      reason: Type.String(),
      epoch: Type.Integer(),
      /** Length of the guest's console output, on its former host, at the checkpoint that was taken over. */
      consoleBytes: Type.Integer(),
    }),
  ),
})
export type GuestStatus = Static<typeof GuestStatus>

export interface Cancelled {
  /** What was under way. */
  cancelled: Operation['kind']
  /** Of a protection: where copies of disks may stay on the other host, which has not answered. */
  copies: string[]
}

/** @property copies where copies of its disks may stay on the other host */
export type Unprotected = GuestStatus & { copies: string[] }

/** What `verify` has found. */
export type Verified = MemoryVerification & {
  /** @property difference first byte of the first 64 KiB that differ @property missing why it was not compared */
  disks: { name: string; bytes: number; difference?: number; missing?: string }[]
}

/** What only a guest that is protected, or waits to take over, has to say. */
export const unprotected = {
  suspended: false,
  devicesDiffer: false,
  ...{ peer: null, peerHost: null },
  tracker: null,
  ...{ codec: null, epochMs: null, pauseShareMax: null, latencyMs: null, outputs: null },
  durability: null,
  spill: null,
  seeding: null,
  operation: null,
  verified: null,
  memory: null,
  hotPages: null,
  fence: null,
  arbiter: null,
  arbiterTrouble: null,
  epochs: null,
  last: null,
  committed: null,
  takeover: null,
} satisfies Partial<GuestStatus>

export const HostStatus = Type.Object({
  host: Type.String(),
  release: Type.String(),
  pid: Type.Integer(),
  /** Where other agents reach this one: HOST:PORT, or without certificates the socket in its state directory. */
  address: Type.String(),
  /** The host's certificate; null when it speaks to its own machine only. */
  certificate: Nullable(
    Type.Object({ name: Type.String(), validTo: Type.String({ description: 'ISO 8601, UTC' }) }),
  ),
  /** Whom this host asks when it has lost another. */
  arbiter: Type.Object({
    description: Type.String(),
    trouble: Nullable(Type.String({ description: 'why it gives no answer' })),
  }),
  ownBytes: Type.Integer({
    description: 'memory of the agent itself; what its guests take is theirs',
  }),
  clock: Type.Object(
    {
      at: Type.Integer({ description: 'milliseconds since 1970, when this was said' }),
      synchronized: Nullable(
        Type.Boolean({
          description: 'something keeps it right, such as NTP; null: the kernel does not tell',
        }),
      ),
    },
    { description: 'the wall clock: events and certificates go by it, decisions about guests do not' },
  ),
  guests: Type.Array(GuestStatus),
})
export type HostStatus = Static<typeof HostStatus>
