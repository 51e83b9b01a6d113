/**
 * The demo guest (guest/, built by scripts/build-guest.sh) as seen from the host: how to start it, and what its
 * self-verifying victim program says on the console (format: guest/victim.c).
 */
import { execFileSync } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { createConnection } from 'node:net'
import { dirname, isAbsolute, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { builtFile } from '../built.ts'
import { SubpageError } from '../errors.ts'
import { logPart } from './bounded-log.ts'
import { readRecord } from './guest-record.ts'

const pollMs = 5

/** The reason for each is in guest/README.md. */
const kernelArguments = [
  ...['console=ttyS0', 'quiet', 'panic=-1', 'tsc=unstable', 'no_timer_check', 'nowatchdog'],
  ...['rcupdate.rcu_cpu_stall_suppress=1', 'cryptomgr.notests'],
]

/**
 * QEMU options of the demo guest.
 * @param append further kernel arguments, such as victim_mib=64
 * @param initrd in build/guest, or the path of one made from those there
 * @throws SubpageError NOT_SET_UP when one of them has not been built
 */
export function demoGuestOptions(append: string[] = [], initrd = 'initrd.gz', kernel = 'vmlinuz'): string[] {
  return [
    ...['-kernel', guestImage(kernel), '-initrd', guestImage(initrd)],
    ...['-append', [...kernelArguments, ...append].join(' '), '-no-reboot'],
  ]
}

/** Path of a part of it. @throws SubpageError NOT_SET_UP when it has not been built */
export const guestImage = (name: string): string => builtFile(isAbsolute(name) ? name : `guest/${name}`)

export interface VictimLine {
  step: number
  /** Full verifications that the victim has passed. */
  verified: number
  digest: string
}

/** The victim's reports in a piece of console output; a line cut at either end is left out. */
export function victimLines(text: string): VictimLine[] {
  return [...text.matchAll(/^victim step=(\d+) pages=\d+ verify=(\d+) digest=([0-9a-f]{16})\r?\n/gm)].map(
    ([, step, verified, digest]) => ({
      step: Number(step),
      verified: Number(verified),
      digest: digest ?? '',
    }),
  )
}

/**
 * A shell command for the guest: writes numbers, each on the disk before it is said, as `record NUMBER`.
 * @param write takes the number $i and puts it on the disk, synced
 */
export const recordLoop = (write: string): string =>
  `(i=0; while i=$((i+1)); ${write}; do echo "record $i"; done; echo "record failed"; dmesg | tail)`

/** Numbers of records in a piece of console output; a line cut at either end is left out. */
export const recordsIn = (text: string): number[] =>
  [...text.matchAll(/^record (\d+)\r?\n/gm)].map(([, number]) => Number(number))

/** What the victim says when its memory is damaged; undefined when it has found nothing. */
export function victimDamage(text: string): string | undefined {
  return /^victim TORN .*$/m.exec(text)?.[0]
}

/** What its kernel says when the demo guest does not come up, or loses its program; undefined when it says nothing of that. */
export function bootTrouble(text: string): string | undefined {
  return /^.*(?:Out of memory: Killed|Kernel panic - not syncing).*$/m.exec(text)?.[0].trim()
}

/** A guest's console: the log of all it printed, and the socket that takes input. */
export interface Console {
  log: string
  socket: string
}

export function consoleAt(log: string): Console {
  return { log, socket: join(dirname(log), 'console.sock') }
}

/** Waits until what the guest has printed from byte `from` of all its output on satisfies `found`, or throws. */
export async function untilConsole<T>(
  console: Console,
  from: number,
  found: (text: string) => T | undefined,
  limitMs: number,
  signal?: AbortSignal,
): Promise<T> {
  const deadline = performance.now() + limitMs
  let seen = -1
  for (;;) {
    const length = consoleLength(console)
    if (length !== seen) {
      seen = length
      const value = found(readConsole(console, from))
      if (value !== undefined) return value
    }
    if (performance.now() > deadline)
      throw new SubpageError(
        'GUEST_DIED',
        `the guest did not print what was awaited within ${limitMs} ms; its last words: ${readConsole(console, Math.max(0, length - 300))}`,
      )
    await delay(pollMs, undefined, { signal })
  }
}

/** Bytes that the guest has printed, also those that are not in the log any more (bounded-log.ts). */
export const consoleLength = ({ log }: Console): number =>
  consoleDropped({ log }) + (existsSync(log) ? statSync(log).size : 0)

/** What the guest has printed, as far as it is kept. @param from of all its output, in bytes */
export function readConsole({ log }: Console, from = 0, to = Number.POSITIVE_INFINITY): string {
  return logPart(log, consoleDropped({ log }), from, to).toString('latin1')
}

/** Bytes that the guest has printed and that are not in the log any more. */
export const consoleDropped = ({ log }: Pick<Console, 'log'>): number =>
  readRecord({ record: join(dirname(log), 'guest.json') })?.consoleDropped ?? 0

/** Types a line on the guest's console. */
export function typeLine({ socket }: Console, line: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const connection = createConnection(socket)
    connection.once('error', reject)
    connection.once('connect', () => connection.end(`${line}\n`, resolve))
  })
}

/** Asks the victim to verify all its memory now. True when it is whole. */
export async function askVictim(console: Console, limitMs = 20_000): Promise<boolean> {
  const from = consoleLength(console)
  await typeLine(console, 'verify')
  return await untilConsole(
    console,
    from,
    (text) => {
      if (victimDamage(text)) return false
      return /^victim verified step=\d+ ok/m.test(text) ? true : undefined
    },
    limitMs,
  )
}

/**
 * The digest that the victim must show at a step: its history depends on the seed and the step alone, so it is computed
 * anew here (guest/victim.c, until=). Shape: 16 hexadecimal digits.
 */
export function victimDigest(step: number): string {
  const said = execFileSync(guestImage('victim'), [`until=${step}`], { encoding: 'utf8' })
  return /digest=([0-9a-f]+)/.exec(said)?.[1] ?? said
}
