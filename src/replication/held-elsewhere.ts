/** The refusal of a host on which the guest runs: it names its copy, so that the primary can judge which one has to end. */
import { SubpageError } from '../errors.ts'

/** A copy of the guest that runs. */
export interface RunningCopy {
  claimant: string
  generation: number
}

export class HeldElsewhere extends SubpageError {
  readonly copy: RunningCopy

  constructor(message: string, copy: RunningCopy) {
    super('HELD_ELSEWHERE', message)
    this.copy = copy
  }
}
