/**
 * What the targets share: a parser, valid forms for it, and ways to bend them. A run is a function of its seed alone, so a finding
 * is named by target and seed: `node dist/scripts/fuzz/main.js TARGET --seed N --runs 1`.
 */
import { SubpageError } from '../../src/errors.ts'
import { type SeededRandom, seededRandom } from '../../test/support/random.ts'

export { type SeededRandom, seededRandom }

export interface Target {
  name: string
  /** Codes with which the parser refuses; everything else that is thrown is a finding. */
  refusals: readonly string[]
  /** One execution: builds a form, bends it or not, gives it to the parser. Throws what the parser throws. */
  once(random: SeededRandom): void | Promise<void>
  close?(): void
}

export const oneIn = (random: SeededRandom, times: number): boolean => random.integer(1, times) === 1

export const pick = <T>(random: SeededRandom, from: readonly T[]): T =>
  from[random.integer(0, from.length - 1)]!

/** Few bytes of noise, many of them alike, or a stretch of one value. */
export function content(random: SeededRandom, bytes: number): Buffer {
  const made = Buffer.alloc(bytes, random.integer(0, 255))
  if (oneIn(random, 2))
    for (let i = random.integer(0, 64); i > 0 && bytes > 0; i--)
      made[random.integer(0, bytes - 1)] = random.integer(0, 255)
  return made
}

const edges = [
  0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
]

/** A copy of a form with a few bytes changed, left out, put in or repeated, or a number of 32 or 64 bits set to an edge. */
export function bent(random: SeededRandom, form: Uint8Array): Buffer {
  let bytes: Buffer = Buffer.from(form)
  for (let bends = random.integer(1, 4); bends > 0; bends--) {
    if (bytes.length === 0) return content(random, random.integer(0, 64))
    const at = random.integer(0, bytes.length - 1)
    const count = Math.min(bytes.length - at, random.integer(1, oneIn(random, 4) ? 4096 : 16))
    switch (random.integer(0, 6)) {
      case 0:
        bytes[at]! ^= 1 << random.integer(0, 7)
        break
      case 1:
        bytes[at] = random.integer(0, 255)
        break
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + count)])
        break
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), content(random, count), bytes.subarray(at)])
        break
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at + count), bytes.subarray(at)])
        break
      case 5:
        if (bytes.length >= at + 4) bytes.writeUInt32LE(pick(random, edges), at)
        break
      default:
        if (bytes.length >= at + 8)
          bytes.writeBigUInt64LE(
            BigInt.asUintN(64, BigInt(pick(random, edges)) << BigInt(random.integer(0, 40))),
            at,
          )
    }
  }
  return bytes
}

/** The form as it is, or bent. */
export const maybeBent = (random: SeededRandom, form: Uint8Array): Uint8Array =>
  oneIn(random, 2) ? bent(random, form) : form

export interface Finding {
  seed: number
  error: unknown
}

export interface Outcome {
  executions: number
  refused: number
  findings: Finding[]
}

const slowMsMax = 10_000
const findingsMax = 5

/** Runs a target from one seed to the next, until the limit of runs or of time is reached. */
export async function fuzz(
  target: Target,
  {
    seed,
    runs = Number.POSITIVE_INFINITY,
    seconds = Number.POSITIVE_INFINITY,
  }: { seed: number; runs?: number; seconds?: number },
): Promise<Outcome> {
  const outcome: Outcome = { executions: 0, refused: 0, findings: [] }
  const until = performance.now() + 1000 * seconds
  try {
    while (outcome.executions < runs && performance.now() < until && outcome.findings.length < findingsMax) {
      const now = seed + outcome.executions++
      const began = performance.now()
      try {
        await target.once(seededRandom(now))
      } catch (error) {
        if (error instanceof SubpageError && target.refusals.includes(error.code)) outcome.refused++
        else outcome.findings.push({ seed: now, error })
      }
      if (performance.now() - began > slowMsMax)
        outcome.findings.push({
          seed: now,
          error: new Error(`took ${Math.round(performance.now() - began)} ms`),
        })
    }
  } finally {
    target.close?.()
  }
  return outcome
}
