/**
 * The settings of a protection, in one place: what the API takes, the guest's record keeps, the hello carries and `subpage protect`
 * has flags for, and what each is when nobody says.
 */
import { type Static, Type } from '#typebox'
import { codecNames } from '../delta/codec.ts'
import { reduceParts } from '../delta/reduce.ts'
import { diskNamePattern } from '../disk/disk-name.ts'
import { trackerChoices } from '../tracking/tracker.ts'
import { durabilities, sendingForm } from './sending.ts'

/** In milliseconds. */
export const timeLimits = {
  epochMs: { minimum: 1, maximum: 60_000 },
  suspicionMs: { minimum: 50, maximum: 60_000 },
  latencyMs: { minimum: 1, maximum: 60_000 },
  verifyEveryMs: { minimum: 1000, maximum: 2 ** 31 - 1 },
} as const

/** What both hosts know, for the protection the other way round too. */
const shared = {
  epochMs: Type.Number(timeLimits.epochMs),
  /** Makes the epoch automatic: the share of time that pauses and faults may take, epochMs being the longest epoch. */
  pauseShareMax: Type.Optional(Type.Number({ minimum: 0.01, maximum: 1 })),
  /** Of an automatic epoch: what the guest sends may wait so long for its commit, on average. */
  latencyMs: Type.Optional(Type.Number(timeLimits.latencyMs)),
  /** After so long a silence a host is suspected. */
  suspicionMs: Type.Number(timeLimits.suspicionMs),
  /** What the guest sends waits for its checkpoint, or leaves at once. */
  outputs: Type.Enum(['held', 'free']),
  tracker: Type.Enum([...trackerChoices]),
  codec: Type.Enum([...codecNames]),
  /** Compares guest and standby so often. */
  verifyEveryMs: Type.Optional(Type.Number(timeLimits.verifyEveryMs)),
  /** When the standby acknowledges a checkpoint: when its memory has it, or its disks as well. Absent: `memory`. */
  durability: Type.Optional(Type.Enum([...durabilities])),
  ...sendingForm,
}

/** What the other host hears of the settings. */
export const SharedSettings = Type.Object(shared)
export type SharedSettings = Static<typeof SharedSettings>

const place = {
  /** Address of the other host, host:port, or the whole path of another agent's state directory. */
  to: Type.String(),
  /** Files or devices of the other host for the copies of disks, by the disk's name. */
  diskTo: Type.Optional(
    Type.Record(Type.String({ pattern: diskNamePattern }), Type.String({ pattern: '^/', maxLength: 4096 })),
  ),
}

const ProtectionPlace = Type.Object(place)

/** Whole: what is absent is not done. */
export const ProtectionSettings = Type.Object({ ...place, ...shared })
export type ProtectionSettings = Static<typeof ProtectionSettings>

/** What `protect` does unless it is told otherwise. */
export const protectionDefaults = {
  epochMs: 25,
  suspicionMs: 500,
  outputs: 'held',
  tracker: 'auto',
  codec: 'masked',
  durability: 'memory',
  reduce: [...reduceParts],
  blockBytes: 1024,
  compress: 'auto',
  speculate: 'auto',
  shadow: 'full',
} satisfies Partial<SharedSettings>

const defaulted = Object.fromEntries(
  Object.entries(Type.Partial(SharedSettings).properties).map(([name, schema]) => {
    const value = (protectionDefaults as Record<string, unknown>)[name]
    return [name, value === undefined ? schema : Type.Optional({ ...schema, default: value })]
  }),
)

/** Whoever asks for a protection says where to; the rest has defaults. */
export const ProtectBody = Type.Object({ ...place, ...defaulted }, { additionalProperties: false })
export type ProtectBody = Static<typeof ProtectionPlace> & Partial<SharedSettings>

export const settingsOf = (body: ProtectBody): ProtectionSettings => ({ ...protectionDefaults, ...body })
