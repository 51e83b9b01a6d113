/** What the agent of a host tells the supervisor of one of its guests, in a file of the guest's directory, before it starts it. */
import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { SubpageError } from '../../errors.ts'
import type { GuestFiles, SupervisorFiles } from '../../qemu/guest-files.ts'
import type { DensitySettings } from '../../qemu/guest-record.ts'
import type { ProcessIdentity } from '../../qemu/process.ts'
import { replaceInPlace } from '../../qemu/room.ts'
import type { ArbiterFlags } from '../arbiter-choice.ts'
import type { TlsFiles } from '../credentials.ts'
import type { LogLevel } from '../log.ts'
import type { SwapPlace } from './host-density.ts'

/** Raised by a change that an agent of another release would misread: of this file, the socket, or the door. */
export const supervisorProtocol = 1

export interface SupervisorSettings {
  protocol: number
  stateDirectory: string
  /** The guest's. */
  name: string
  host: string
  /** Where other hosts reach the agent; undefined without certificates. */
  reachedAt: string | undefined
  arbiter: ArbiterFlags
  tls: TlsFiles | undefined
  /** Directories that guests may read from, as the operator named them. */
  images: string | undefined
  /** Directories in which other hosts may name files and devices for copies of disks, as the operator named them. */
  diskDirectories: string | undefined
  swap: SwapPlace | undefined
  logLevel: LogLevel
  /** How an image of this guest was held densely, which was lost. */
  density?: { id: string; settings: DensitySettings }
  /** Of the first process only (fault.ts): the next one begins without. */
  faults?: string
}

/** Once it was written, however full the file system is. @throws SubpageError NO_SPACE the first time */
export function writeSettings({ settings: file }: SupervisorFiles, settings: SupervisorSettings): void {
  replaceInPlace(file, JSON.stringify(settings))
}

/** Whether a supervisor that began with one set could have begun with the other. */
export function sameSettings(one: SupervisorSettings, other: SupervisorSettings): boolean {
  const lasting = ({ density: _, faults: __, logLevel: ___, ...settings }: SupervisorSettings) => settings
  // As they are read back.
  return isDeepStrictEqual(
    JSON.parse(JSON.stringify(lasting(one))),
    JSON.parse(JSON.stringify(lasting(other))),
  )
}

/** @throws SubpageError STATE_DAMAGED */
export function readSettings(file: string): SupervisorSettings {
  let settings: SupervisorSettings
  try {
    settings = JSON.parse(readFileSync(file, 'utf8'))
  } catch (cause) {
    throw new SubpageError('STATE_DAMAGED', `${file} cannot be read`, { cause })
  }
  if (settings.protocol !== supervisorProtocol)
    throw new SubpageError(
      'STATE_DAMAGED',
      `${file} is of an agent that speaks protocol ${settings.protocol} with supervisors, this release ${supervisorProtocol}`,
    )
  return settings
}

/** The process of the guest's supervisor, or of the last one that did not end in order; undefined when none has begun. */
export function supervisorOf({ supervisor }: GuestFiles): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(supervisor.lock, 'utf8'))
  } catch {
    // None has begun, or it has ended in order.
    return undefined
  }
}
