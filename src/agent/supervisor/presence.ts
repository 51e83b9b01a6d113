/**
 * How a supervisor proves to another one of its machine that each sees the processes of the other (source-sight.ts): it holds a
 * file open whose name only it can know. The file is removed at once; its name stays readable in /proc/PID/fd.
 */
import { randomUUID } from 'node:crypto'
import { openSync, readlinkSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { bootId, fateOf, identify, processSpace } from '../../qemu/process.ts'
import type { Hello } from '../../replication/messages.ts'
import type { Sight, Token } from '../../replication/source-sight.ts'

export interface Presence {
  bootId: () => string
  /** What a supervisor says of itself; undefined when it cannot say where its processes are. */
  supervisor: () => Hello['source']['supervisor']
  sight: Sight
}

/** Of this process, on this machine, until it ends. */
export function showPresence(stateDirectory: string): Presence {
  const token = showToken(stateDirectory)
  return { bootId, supervisor: () => presenceOf(token), sight: realSight }
}

function showToken(stateDirectory: string): Token {
  const name = `presence-${randomUUID()}`
  const path = join(resolve(stateDirectory), name)
  const descriptor = openSync(path, 'wx', 0o600)
  rmSync(path)
  return { descriptor, name }
}

function presenceOf(token: Token): Hello['source']['supervisor'] {
  const own = identify(process.pid)
  if (!own?.within) return undefined
  const { pid, startTime, within } = own
  return { process: { pid, startTime }, pidNamespace: within.pidNamespace, token }
}

const realSight: Sight = {
  space: processSpace,
  fate: fateOf,
  holds: ({ pid }, { descriptor, name }) => {
    try {
      // Read, and not opened: behind a descriptor that somebody else names there may be anything.
      return readlinkSync(`/proc/${pid}/fd/${descriptor}`).includes(`/${name}`)
    } catch {
      // It has ended, or may not be looked at from here.
      return false
    }
  },
}
