/**
 * The record of a guest on one host, guest.json in its directory: that from which a restarted agent finds its guests again. It is
 * always whole, has its room (room.ts), and is checked whole when it is read.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { type Static, Type } from '#typebox'
import { Value } from '#typebox/value'
import { errorCode, SubpageError } from '../errors.ts'
import { ProtectionSettings } from '../replication/protection-settings.ts'
import type { GuestFiles } from './guest-files.ts'
import { Machine } from './options.ts'
import { ProcessIdentity } from './process.ts'
import { replaceInPlace, syncToDisk } from './room.ts'

/** How memory is held densely. Bytes, milliseconds. */
export const DensitySettings = Type.Object(
  {
    /** Memory that the guest shall take, the store's part not counted; without it, whatever is cold goes. */
    targetBytes: Type.Optional(Type.Integer({ minimum: 1 << 20 })),
    /** Guests of one domain share pages; without it the guest shares with itself only. */
    trustDomain: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$' })),
    /** What was accessed within this time stays. */
    recentMs: Type.Number({ minimum: 0, maximum: 86_400_000 }),
    /** What was not accessed for this long may go whole; before, only if it is shared or becomes a patch. */
    coldMs: Type.Number({ minimum: 0, maximum: 86_400_000 }),
    /** Share of one core that moving pages may take, and of the guest's time that watching its memory may. */
    budget: Type.Number({ minimum: 0.001, maximum: 1 }),
  },
  { additionalProperties: false },
)
export type DensitySettings = Static<typeof DensitySettings>

export const GuestRecord = Type.Object({
  format: Type.Literal(1),
  /** Unique for ever, on every host: the arbiter knows the guest by it. */
  id: Type.String(),
  /** Of the guest; written down before anything is done in it. */
  generation: Type.Integer({ minimum: 1 }),
  /** Whether its hosts have found that they see the same arbiter. */
  arbitrated: Type.Boolean(),
  /** The other host of its pair, when they last met: it may hold a checkpoint. */
  peer: Type.Optional(Type.String()),
  name: Type.String(),
  machine: Machine,
  qemuVersion: Type.String(),
  process: ProcessIdentity,
  /** True while QEMU waits for its state as a standby. */
  waiting: Type.Boolean(),
  /** How the guest is to be protected; kept so that a restarted agent protects it again. */
  protection: Type.Optional(ProtectionSettings),
  /** How its memory is held densely; written before the first page leaves its RAM file, kept until all are back. */
  density: Type.Optional(DensitySettings),
  /** Of its console's output, what is not in the log any more. */
  consoleDropped: Type.Optional(Type.Integer({ minimum: 0 })),
  /** Somebody else has stopped it (virsh suspend): it goes on standing still. */
  suspended: Type.Optional(Type.Boolean()),
})
export type GuestRecord = Static<typeof GuestRecord>

/** Once it was written, however full the file system is. @throws SubpageError NO_SPACE the first time */
export function writeRecord(files: Pick<GuestFiles, 'directory' | 'record'>, record: GuestRecord): void {
  // As a cleaner of old files may have removed it.
  mkdirSync(files.directory, { recursive: true, mode: 0o700 })
  replaceInPlace(files.record, `${JSON.stringify(record, undefined, 2)}\n`)
}

/** Resolves when the record outlasts a loss of power. */
export async function syncRecord(files: Pick<GuestFiles, 'record'>): Promise<void> {
  await syncToDisk(files.record)
}

/** Undefined when the directory has no record: a start that was cut short. @throws SubpageError STATE_DAMAGED, AUTH_REFUSED */
export function readRecord(files: Pick<GuestFiles, 'record'>): GuestRecord | undefined {
  const text = textOf(files.record)
  if (text === undefined) return undefined
  try {
    const read = JSON.parse(text)
    // An earlier release has written it.
    if (read.machine) {
      read.machine.disks ??= []
      if (read.machine.nodes) read.machine.backends ??= read.machine.nodes
    }
    return Value.Parse(GuestRecord, read)
  } catch (cause) {
    throw new SubpageError(
      'STATE_DAMAGED',
      `its record ${files.record} is damaged, or of another release than this one, which reads format 1`,
      { cause },
    )
  }
}

/** Only what is not there is no record: one that cannot be read is there. */
function textOf(record: string): string | undefined {
  try {
    return readFileSync(record, 'utf8')
  } catch (cause) {
    const code = errorCode(cause)
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    if (code === 'EACCES')
      throw new SubpageError(
        'AUTH_REFUSED',
        `this user may not read ${record}: run the command as the user of the agent, or name an agent of your own with --state`,
        { cause },
      )
    throw new SubpageError(
      'STATE_DAMAGED',
      `its record ${record} cannot be read: ${(cause as Error).message}`,
      { cause },
    )
  }
}
