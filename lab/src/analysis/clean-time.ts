/**
 * How long a page stays clean after it was written: what a page that is sent before the end of its epoch is worth, because it
 * need not be sent again (speculative state transfer, Lu and Chiueh, DSN 2009).
 *
 * A page that is not written again before the recording ends has stayed clean for at least that long. Such times count with
 * the estimator of Kaplan and Meier (1958), so that a short recording does not make pages look dirtier than they are.
 */
import type { PageRanges } from 'subpage/memory/page-ranges'

export class CleanTimes {
  /** Per page, in which span it was last written, from 1; 0: never. */
  #last = new Uint32Array(0)
  #now = 0
  /** By length in spans: pages that were written again after so many clean ones. */
  readonly #written = new Map<number, number>()
  /** As `written`: pages of which nothing more is known. */
  readonly #open = new Map<number, number>()

  add(dirty: PageRanges): void {
    this.#now++
    if (dirty.endPage > this.#last.length) {
      const grown = new Uint32Array(Math.max(dirty.endPage, 2 * this.#last.length))
      grown.set(this.#last)
      this.#last = grown
    }
    for (const { first, count } of dirty)
      for (let page = first; page < first + count; page++) {
        const last = this.#last[page]!
        if (last > 0) {
          increment(this.#written, this.#now - last - 1)
        }
        this.#last[page] = this.#now
      }
  }

  /** After lost time nothing is known about what came before. */
  forget(): void {
    this.#leaveOpen(this.#open)
    this.#last.fill(0)
  }

  #leaveOpen(open: Map<number, number>): void {
    for (const last of this.#last) if (last > 0) increment(open, this.#now - last)
  }

  /**
   * The share of writes after which the page stayed clean for at least so many whole spans.
   * @returns ascending by spans, from [1, …]; empty when nothing was written
   */
  survival(): [spans: number, share: number][] {
    const open = new Map(this.#open)
    this.#leaveOpen(open)
    let atRisk = 0
    for (const counts of [this.#written, open]) for (const count of counts.values()) atRisk += count
    const points: [number, number][] = []
    let share = 1
    for (let clean = 0; clean < this.#now && atRisk > 0; clean++) {
      // Written again after exactly `clean` spans; those still open then are known to have stayed clean for `clean`.
      const ended = this.#written.get(clean) ?? 0
      const left = open.get(clean) ?? 0
      // An open time of `clean` spans says nothing about the next: it leaves before the next is counted.
      const known = atRisk - left
      if (known === 0) break
      share *= 1 - ended / known
      atRisk = known - ended
      points.push([clean + 1, share])
    }
    return points
  }
}

const increment = (counts: Map<number, number>, key: number) => counts.set(key, (counts.get(key) ?? 0) + 1)
