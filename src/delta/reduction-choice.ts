/**
 * How much work an epoch's deltas are worth: none (they go as they were captured), reduced, or reduced and compressed.
 * Whichever has them on the other side soonest, as measured: a link that is faster than a compressor turns it off, a busy
 * processor counts as a slow one. Work is charged once more for the share of the host's processors that is busy, for it
 * is taken from guests then.
 *
 *   cost(method) = time from the first byte until the other side has the last + busy × time spent on reducing
 */
import { squeezeMethods } from './reduce.ts'

export const compressChoices = ['auto', ...squeezeMethods] as const
export type Compress = (typeof compressChoices)[number]

/** `none`: what goes, goes as it is. */
export const reductionMethods = ['none', ...squeezeMethods] as const
export type ReductionMethod = (typeof reductionMethods)[number]

/** Weight of the newest measurement, and of one after a long while. */
const weight = 0.2
const weightOfTrial = 0.5
/** What is not used is tried again after this many epochs: contents and loads change. What was bad by far, later. */
const tryAfterEpochs = 64
const tryBadAfterEpochs = 512
const badFactor = 2
/** Smaller epochs say more about the round trip than about speed. */
const tellingBytes = 16 * 1024

interface Experience {
  /** Microseconds for each byte of delta; undefined when never tried. */
  cost: number | undefined
  lastTried: number
}

export class ReductionChoice {
  readonly #methods: readonly ReductionMethod[]
  readonly #busy: () => number
  readonly #experience = new Map<ReductionMethod, Experience>()
  #epoch = 0

  /** @param busy share of this host's processors that have work, 0 to 1 */
  constructor(choice: Compress, busy: () => number) {
    // Begins with the second: until something is known, neither the link nor the processor is burdened much.
    this.#methods = choice === 'auto' ? ['off', 'lz4', 'zstd', 'none'] : [choice]
    this.#busy = busy
    for (const method of this.#methods) this.#experience.set(method, { cost: undefined, lastTried: 0 })
  }

  /** For an epoch whose deltas have about this many bytes. */
  next(bytes: number): ReductionMethod {
    this.#epoch++
    const best = this.#best
    if (this.#methods.length === 1 || bytes < tellingBytes) return best
    return this.#methods.find((method) => method !== best && this.#isDue(method, best)) ?? best
  }

  /**
   * @param deltaBytes as they were captured
   * @param reduceUs what reducing took @param totalUs from the first byte of the epoch's end until the other side had the last
   */
  learn(method: ReductionMethod, deltaBytes: number, reduceUs: number, totalUs: number): void {
    const experience = this.#experience.get(method)
    if (deltaBytes < tellingBytes || !experience) return
    const cost = (totalUs + this.#busy() * reduceUs) / deltaBytes
    const recent = this.#epoch - experience.lastTried < tryAfterEpochs / 2
    experience.cost =
      experience.cost === undefined
        ? cost
        : experience.cost + (recent ? weight : weightOfTrial) * (cost - experience.cost)
    experience.lastTried = this.#epoch
  }

  get #best(): ReductionMethod {
    return this.#methods.reduce((best, method) => (this.#cost(method) < this.#cost(best) ? method : best))
  }

  #isDue(method: ReductionMethod, best: ReductionMethod): boolean {
    const { cost, lastTried } = this.#experience.get(method)!
    if (cost === undefined) return true
    const isBad = cost > badFactor * this.#cost(best)
    return this.#epoch - lastTried > (isBad ? tryBadAfterEpochs : tryAfterEpochs)
  }

  #cost(method: ReductionMethod): number {
    return this.#experience.get(method)?.cost ?? Number.POSITIVE_INFINITY
  }
}
