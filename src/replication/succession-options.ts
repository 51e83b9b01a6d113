/** What a succession (succession.ts) begins with, and what of it is written down. */
import type { Arbiter } from './arbiter.ts'

/** What a host writes down of a guest's succession. */
export interface Standing {
  generation: number
  /** Whether the two hosts have found, when they last met, that they see the same arbiter. */
  arbitrated: boolean
  /** The other host of the pair; undefined until they have met. */
  peer?: string
}

export interface SuccessionOptions extends Standing {
  /** Unique id of the guest. */
  guest: string
  /** Unique name of this host. */
  claimant: string
  /** None: only people decide, by command. */
  arbiter: Arbiter | undefined
  /** Writes it down: at once so that it outlasts this process, and, when it resolves, a loss of power. */
  save: (standing: Standing) => Promise<void>
}
