/** How far long work has come: bringing the standby up to what a protection begins with, memory and disks; comparing them. */
import type { Clock } from './clock.ts'
import type { GuestDisks } from './disks.ts'

export interface ProgressFigures {
  /** Compared or sent. */
  doneBytes: number
  /** Of disks and memory; what is written meanwhile is looked at once more, and comes on top. */
  totalBytes: number
  bytesPerSecond: number
  /** At that rate; null while nothing is done. */
  secondsLeft: number | null
}

export function figuresOf(doneBytes: number, totalBytes: number, tookMs: number): ProgressFigures {
  const bytesPerSecond = tookMs > 0 ? (doneBytes * 1000) / tookMs : 0
  const secondsLeft = bytesPerSecond > 0 ? (totalBytes - doneBytes) / bytesPerSecond : null
  return { doneBytes, totalBytes, bytesPerSecond, secondsLeft }
}

export class SeedProgress {
  readonly #clock: Clock
  readonly #disks: GuestDisks
  readonly #startedAt: number
  #memory: { doneBytes: number; totalBytes: number }

  /** @param disks those that are seeded, too @param memoryBytes until it is known what is to be sent of it */
  constructor(clock: Clock, disks: GuestDisks, memoryBytes: number) {
    this.#clock = clock
    this.#disks = disks
    this.#startedAt = clock.now()
    this.#memory = { doneBytes: 0, totalBytes: memoryBytes }
  }

  /** A round of memory begins, on top of what is done. */
  expect(bytes: number): void {
    const { doneBytes } = this.#memory
    this.#memory = { doneBytes, totalBytes: doneBytes + bytes }
  }

  add(bytes: number): void {
    this.#memory.doneBytes += bytes
  }

  get figures(): ProgressFigures {
    const doneBytes = this.#disks.fedBytes + this.#memory.doneBytes
    const totalBytes = this.#disks.feedBytes + this.#memory.totalBytes
    return figuresOf(doneBytes, totalBytes, this.#clock.now() - this.#startedAt)
  }
}
