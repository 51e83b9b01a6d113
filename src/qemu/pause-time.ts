/** For how long a guest stood still in a pause: QEMU says when its virtual CPUs had stopped, and when they were let run. */
import type { Qmp, QmpEvent } from './qmp.ts'

/** By the clock of the host's time of day. */
const usOf = ({ timestamp: { seconds, microseconds } }: QmpEvent) => seconds * 1e6 + microseconds

export class PauseTime {
  readonly #qmp: Pick<Qmp, 'last'>
  readonly #startedAt = performance.now()
  readonly #before: QmpEvent | undefined

  /** Before it is asked to stop. */
  constructor(qmp: Pick<Qmp, 'last'>) {
    this.#qmp = qmp
    this.#before = qmp.last('STOP')
  }

  /** It ran until it was stopped since: of one that stands still already QEMU says nothing. */
  get stopped(): boolean {
    return this.#qmp.last('STOP') !== this.#before
  }

  /**
   * After it was told to run, and has answered. Without a word of QEMU's, as of a guest that stood before, and when its clock was set
   * meanwhile, the pause lasted for no longer than it took to ask for it and to hear of its end.
   */
  ended(): { pauseUs: number; pausingUs: number } {
    const pausingUs = (performance.now() - this.#startedAt) * 1000
    const [stop, resume] = [this.#qmp.last('STOP'), this.#qmp.last('RESUME')]
    const stoodUs = stop && resume && this.stopped ? usOf(resume) - usOf(stop) : Number.NaN
    return { pauseUs: stoodUs >= 0 && stoodUs <= pausingUs ? stoodUs : pausingUs, pausingUs }
  }
}
