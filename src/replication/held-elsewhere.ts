/** The refusal of a host that has a copy of the guest: it names it, so that the primary can judge which one has to end. */
import { SubpageError } from '../errors.ts'

export interface OtherCopy {
  claimant: string
  generation: number
  /** Or it is a standby, which may be about to run it. */
  runs: boolean
}

export class HeldElsewhere extends SubpageError {
  readonly copy: OtherCopy

  constructor(message: string, copy: OtherCopy) {
    super('HELD_ELSEWHERE', message)
    this.copy = copy
  }
}
