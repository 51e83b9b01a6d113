/**
 * Identity of a process that outlives us: pid plus start time, since a pid alone may be reused.
 * Source: proc(5), /proc/PID/stat fields 3 (state) and 22 (starttime).
 */
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { errorCode } from '../errors.ts'

export interface ProcessIdentity {
  pid: number
  /** Clock ticks after boot; unique for a pid within one boot. */
  startTime: string
}

/** Fields after the command name, which is in parentheses and may itself hold spaces. */
function statFields(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ESRCH') return undefined
    throw error
  }
}

/** Undefined when no such process runs. */
export function identify(pid: number): ProcessIdentity | undefined {
  const startTime = statFields(pid)?.[19]
  return startTime === undefined ? undefined : { pid, startTime }
}

/** A zombie counts as gone: it executes nothing any more. */
export function isRunning(process: ProcessIdentity): boolean {
  const fields = statFields(process.pid)
  return fields !== undefined && fields[19] === process.startTime && fields[0] !== 'Z' && fields[0] !== 'X'
}

const pollMs = 5

/** Waits until the process has ended, or for `limitMs`. */
export async function untilGone(process: ProcessIdentity, limitMs = Number.POSITIVE_INFINITY): Promise<void> {
  const deadline = performance.now() + limitMs
  while (isRunning(process) && performance.now() < deadline) await delay(pollMs)
}

/** Names this boot of this machine: equal on two agents means that they see the same processes. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}
