/**
 * What we were started with, before Node.js changed it: it raises the soft limit of open files, takes every signal out of being
 * ignored, and blocks none. The shell that begins main.ts asks the kernel first and leaves the answer in the environment. A
 * command that we start gets it back; without the shell (`node main.js`) nothing is known.
 */
import { constants } from 'node:os'
import { takeMessage } from '../environment.ts'

export interface StartedWith {
  /** The soft limit of open files: a number, or unlimited. */
  openFiles: string
  /** Masks in hexadecimal, bit 0 for signal 1, as /proc/PID/status has them. */
  blocked: string
  ignored: string
}

const form = /^(\d+|unlimited),([\da-f]{16}),([\da-f]{16})$/

function take(): StartedWith | undefined {
  const [, openFiles, blocked, ignored] = form.exec(takeMessage('subpage_started_with') ?? '') ?? []
  return openFiles === undefined ? undefined : { openFiles, blocked: blocked!, ignored: ignored! }
}

export const startedWith = take()

/** Whether whoever started us wanted a signal ignored, as nohup(1) does. */
export function ignoredAtStart(signal: keyof typeof constants.signals): boolean {
  const bit = BigInt(constants.signals[signal] - 1)
  return startedWith !== undefined && ((BigInt(`0x${startedWith.ignored}`) >> bit) & 1n) === 1n
}
