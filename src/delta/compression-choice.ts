/**
 * Which compression an epoch gets, from what the last ones took: whichever has the bytes on the other side soonest. Times are
 * measured, so a busy processor counts as a slow one; a link that is faster than a compressor turns it off.
 *
 *   time(method) = body / speed(method) + body × ratio(method) / link
 */
import { type SqueezeMethod, squeezeMethods } from './reduce.ts'

export const compressChoices = ['auto', ...squeezeMethods] as const
export type Compress = (typeof compressChoices)[number]

/** Weight of the newest measurement. */
const weight = 0.2
/** What is not used is tried again after this many epochs: contents and loads change. */
const tryAfterEpochs = 64
/** Smaller ones say more about the round trip than about speed. */
const tellingBytes = 16 * 1024

interface Experience {
  /** Bytes of body per microsecond, compression included. */
  speed: number
  /** Bytes sent per byte of body. */
  ratio: number
  lastTried: number
}

export class CompressionChoice {
  readonly #fixed: SqueezeMethod | undefined
  // Before anything was measured: what these methods usually do with encoded deltas, on one core.
  readonly #experience: Record<SqueezeMethod, Experience> = {
    off: { speed: 10_000, ratio: 1, lastTried: 0 },
    lz4: { speed: 400, ratio: 0.6, lastTried: 0 },
    zstd: { speed: 200, ratio: 0.4, lastTried: 0 },
  }
  #linkBytesPerUs: number | undefined
  #epoch = 0

  constructor(choice: Compress) {
    this.#fixed = choice === 'auto' ? undefined : choice
  }

  /** For an epoch whose deltas have about this many bytes. */
  next(bytes: number): SqueezeMethod {
    this.#epoch++
    if (this.#fixed) return this.#fixed
    if (this.#linkBytesPerUs === undefined) return 'off'
    const untried = squeezeMethods.find((m) => this.#epoch - this.#experience[m].lastTried > tryAfterEpochs)
    if (untried && bytes >= tellingBytes) return untried
    const link = this.#linkBytesPerUs
    const timeUs = (m: SqueezeMethod) => 1 / this.#experience[m].speed + this.#experience[m].ratio / link
    return squeezeMethods.reduce((best, m) => (timeUs(m) < timeUs(best) ? m : best))
  }

  /**
   * @param bodyBytes what was to be compressed, and how long that took @param sentBytes what it became
   * @param linkUs from the first byte sent until the other side had the last
   */
  learn(
    method: SqueezeMethod,
    bodyBytes: number,
    squeezeUs: number,
    sentBytes: number,
    linkUs: number,
  ): void {
    if (bodyBytes < tellingBytes) return
    const experience = this.#experience[method]
    experience.speed = mix(experience.speed, bodyBytes / Math.max(1, squeezeUs))
    experience.ratio = mix(experience.ratio, sentBytes / bodyBytes)
    experience.lastTried = this.#epoch
    const link = sentBytes / Math.max(1, linkUs)
    this.#linkBytesPerUs = this.#linkBytesPerUs === undefined ? link : mix(this.#linkBytesPerUs, link)
  }
}

const mix = (old: number, now: number) => old + weight * (now - old)
