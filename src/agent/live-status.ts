/**
 * The status of a host, again and again, for whoever looks at the dashboard: one look a second for all viewers together, none while
 * there is nobody. A viewer that has not read the one before misses this one: a slow line shows fewer pictures, no older ones.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { asSubpageError } from '../errors.ts'
import { Sampler } from './guest-history.ts'
import type { Point } from './point-ring.ts'
import type { HostStatus } from './status.ts'

export interface LiveView {
  status: HostStatus
  /** By guest. */
  points: Record<string, Point>
}

export type LiveMessage = LiveView | { code: string; message: string }

const everyMs = 1_000

export class LiveStatus {
  readonly #look: () => Promise<HostStatus>
  readonly #viewers = new Set<(message: LiveMessage) => void>()
  #looking = false

  constructor(look: () => Promise<HostStatus>) {
    this.#look = look
  }

  /** @returns ends it */
  follow(viewer: (message: LiveMessage) => void): () => void {
    this.#viewers.add(viewer)
    if (!this.#looking) void this.#run()
    return () => void this.#viewers.delete(viewer)
  }

  /** Never rejects: what cannot be looked at, or shown, is told as an error, and a viewer that cannot be told is let go. */
  async #run(): Promise<void> {
    this.#looking = true
    const sampler = new Sampler()
    while (this.#viewers.size > 0) {
      const message = await this.#look()
        .then((status): LiveMessage => this.#view(sampler, status))
        .catch((error) => {
          const { code, message } = asSubpageError(error)
          return { code, message }
        })
      for (const viewer of this.#viewers) this.#tell(viewer, message)
      await delay(everyMs, undefined, { ref: false })
    }
    this.#looking = false
  }

  #tell(viewer: (message: LiveMessage) => void, message: LiveMessage): void {
    try {
      viewer(message)
    } catch {
      // Its connection is broken: it comes back by itself.
      this.#viewers.delete(viewer)
    }
  }

  #view(sampler: Sampler, status: HostStatus): LiveView {
    const points: Record<string, Point> = {}
    for (const guest of status.guests) {
      // The wall clock, for the axis that people read.
      const point = sampler.sample(guest, performance.now(), Date.now())
      if (point) points[guest.name] = point
    }
    return { status, points }
  }
}
