/**
 * Identity of a process that outlives us: pid and start time, since a pid alone may be reused, and the boot and PID
 * namespace in which they count. What cannot be seen is not taken for gone: /proc hides processes of others when it is
 * mounted with hidepid, and shows those of another namespace when nobody has mounted it for ours; kill(2) asks our own
 * namespace, and hides nothing.
 * Source: proc(5), /proc/PID/stat fields 3 (state), 20 (num_threads) and 22 (starttime); pid_namespaces(7); kill(2).
 */
import { readFileSync, readlinkSync, statSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { type Static, Type } from '#typebox'
import { errorCode, SubpageError } from '../errors.ts'

/** Where a pid names a process. */
const ProcessSpace = Type.Object({
  bootId: Type.String(),
  /** Device and inode of /proc/PID/ns/pid. */
  pidNamespace: Type.String(),
})
export type ProcessSpace = Static<typeof ProcessSpace>

export const ProcessIdentity = Type.Object({
  pid: Type.Integer({ minimum: 1 }),
  /** Clock ticks after boot; unique for a pid within one boot. */
  startTime: Type.String(),
  /** Absent in a record that an earlier release wrote, which took every process for one of ours. */
  within: Type.Optional(ProcessSpace),
})
export type ProcessIdentity = Static<typeof ProcessIdentity>

/** `unseen`: it may run, where it cannot be seen from here. */
export type ProcessFate = 'runs' | 'gone' | 'unseen'

/** Undefined when /proc shows processes of another PID namespace than ours, so that nothing can be known of any. */
export function processSpace(): ProcessSpace | undefined {
  try {
    if (readlinkSync('/proc/self') !== String(process.pid)) return undefined
    const { dev, ino } = statSync('/proc/self/ns/pid')
    return { bootId: bootId(), pidNamespace: `${dev}:${ino}` }
  } catch {
    // Without /proc nothing can be known either.
    return undefined
  }
}

/** @throws SubpageError BAD_ARGUMENT when /proc shows processes of another PID namespace than ours */
export function assertOwnProc(): void {
  if (!processSpace())
    throw new SubpageError(
      'BAD_ARGUMENT',
      '/proc shows the processes of another PID namespace than the one this program runs in: mount it anew there (unshare --pid --fork --mount-proc)',
    )
}

/** Fields after the command name, which is in parentheses and may itself hold spaces. Undefined without such a file. */
function statFields(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    // No such process, or none that may be looked at; or we have no descriptor left.
    return undefined
  }
}

/** Undefined when no such process can be seen. */
export function identify(pid: number): ProcessIdentity | undefined {
  const within = processSpace()
  const startTime = statFields(pid)?.[19]
  return startTime === undefined || !within ? undefined : { pid, startTime, within }
}

export function fateOf({ pid, startTime, within }: ProcessIdentity): ProcessFate {
  const here = processSpace()
  if (within && here && within.bootId !== here.bootId) return 'gone'
  if (!here || (within && within.pidNamespace !== here.pidNamespace)) return 'unseen'
  const fields = statFields(pid)
  if (!fields) return hasProcess(pid) ? 'unseen' : 'gone'
  if (fields[19] !== startTime) return 'gone'
  // A zombie executes nothing any more, unless it is only the first of several threads that has ended.
  const ended = fields[0] === 'X' || (fields[0] === 'Z' && Number(fields[17]) <= 1)
  return ended ? 'gone' : 'runs'
}

function hasProcess(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return errorCode(error) !== 'ESRCH'
  }
}

export function isRunning(process: ProcessIdentity): boolean {
  return fateOf(process) === 'runs'
}

/** It is known to run no more. */
export function isGone(process: ProcessIdentity): boolean {
  return fateOf(process) === 'gone'
}

/** The kernel's PF_EXITING, in the ninth field of /proc/PID/stat. */
const exitingFlag = 4n
const sigkillBit = 1n << 8n

/**
 * Its first thread has ended or will, which QEMU's never does alone: the process is being ended, though other threads may still
 * be there. So it is from the moment at which SIGKILL was sent, before any thread has taken notice of it.
 */
export function isEnding({ pid }: ProcessIdentity): boolean {
  const fields = statFields(pid)
  if (!fields) return false
  if (/^[ZX]$/.test(fields[0] ?? '') || BigInt(fields[6] ?? 0) & exitingFlag) return true
  return (pendingSignals(pid) & sigkillBit) !== 0n
}

/**
 * Of its first thread, and of the process: a thread takes its own off before it says that it ends, that of the process stays.
 * None of one that is gone.
 */
function pendingSignals(pid: number): bigint {
  try {
    const masks = readFileSync(`/proc/${pid}/status`, 'utf8').matchAll(/^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$/gm)
    return [...masks].reduce((all, [, mask]) => all | BigInt(`0x${mask}`), 0n)
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ESRCH') return 0n
    throw error
  }
}

/** Sends SIGKILL, if the process still runs: it may have ended, and been reaped by another one, a moment ago. */
export function killProcess(identity: ProcessIdentity): void {
  if (!isRunning(identity)) return
  try {
    process.kill(identity.pid, 'SIGKILL')
  } catch (error) {
    if (errorCode(error) !== 'ESRCH') throw error
  }
}

const pollMs = 5

/** Waits until the process has ended, or for `limitMs`. */
export async function untilGone(process: ProcessIdentity, limitMs = Number.POSITIVE_INFINITY): Promise<void> {
  const deadline = performance.now() + limitMs
  while (!isGone(process) && performance.now() < deadline) await delay(pollMs)
}

/** Names this boot of this machine. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}
