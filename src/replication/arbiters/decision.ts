/**
 * A decision as it is stored: one JSON object that never changes once it is there. Also the names under which decisions
 * and marks are kept; they become file names and keys, so nothing else than what is listed here may pass.
 */
import { type Static, Type } from '#typebox'
import { Value } from '#typebox/value'
import { SubpageError } from '../../errors.ts'
import { limits } from '../../limits.ts'
import type { Holder } from '../arbiter.ts'

const Stored = Type.Object({
  format: Type.Literal(1),
  guest: Type.String(),
  generation: Type.Integer({ minimum: 0 }),
  claimant: Type.String({ minLength: 1, maxLength: 255 }),
  at: Type.String(),
})

/** Longer than any decision: what is longer is not one. */
export const decisionBytesMax = limits.arbiterDecisionBytes.value

/** What is decided: who holds this guest from this generation on. */
export interface Question {
  /** A UUID in lower case: two spellings would be two decisions. */
  guest: string
  generation: number
}

/** @throws SubpageError BAD_ARGUMENT */
export function question(guest: string, generation: number): Question {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(guest))
    throw new SubpageError('BAD_ARGUMENT', `${JSON.stringify(guest)} is not the id of a guest: a UUID`)
  if (!Number.isSafeInteger(generation) || generation < 0)
    throw new SubpageError('BAD_ARGUMENT', `${generation} is not a generation: a whole number from 0 on`)
  return { guest: guest.toLowerCase(), generation }
}

/** @throws SubpageError BAD_ARGUMENT */
export function checkMark(mark: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/.test(mark))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${JSON.stringify(mark)} cannot be a mark: use up to 128 letters, digits, dashes and underscores`,
    )
}

/** The claim of `claimant`, ready to be stored. @throws SubpageError BAD_ARGUMENT */
export function encodeClaim(asked: Question, claimant: string): { text: string; holder: Holder } {
  if (!/^[\x21-\x7e]{1,255}$/.test(claimant))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${JSON.stringify(claimant)} cannot be a claimant: use up to 255 printable ASCII characters, no spaces`,
    )
  // The wall clock is for people.
  const holder = { claimant, generation: asked.generation, at: new Date().toISOString() }
  return { text: `${JSON.stringify({ format: 1, guest: asked.guest, ...holder })}\n`, holder }
}

/**
 * @param place where it was found, for the message
 * @throws SubpageError ARBITER_UNREACHABLE when it is not a decision on what was asked: nobody may guess what it said
 */
export function decodeDecision(text: string, { guest, generation }: Question, place: string): Holder {
  let stored: Static<typeof Stored> | undefined
  let cause: unknown
  try {
    stored = Value.Parse(Stored, JSON.parse(text))
  } catch (error) {
    cause = error
  }
  if (stored?.guest !== guest || stored.generation !== generation)
    throw new SubpageError(
      'ARBITER_UNREACHABLE',
      `${place} is damaged: it is no decision on generation ${generation} of guest ${guest}. ` +
        'Until it is gone nobody may take the guest: see on which host it runs, end it on the other, then delete that entry',
      { cause },
    )
  return { claimant: stored.claimant, generation, at: stored.at }
}
