/** The points of the last hour, one for each of so many milliseconds, in a ring of fixed size. */

/** One number for each column; null where there was none. */
export type Point = (number | null)[]

const hourMs = 3_600_000

export class PointRing {
  readonly #columns: number
  readonly #everyMs: number
  readonly #rows: Float64Array
  readonly #points: number
  #newestAtMs = Number.NEGATIVE_INFINITY
  #count = 0

  constructor(columns: number, everyMs: number) {
    this.#columns = columns
    this.#everyMs = everyMs
    this.#points = Math.floor(hourMs / everyMs)
    this.#rows = new Float64Array(this.#points * columns)
  }

  /** The newest point is old enough. @param atMs monotonic */
  wants(atMs: number): boolean {
    return this.#newestAtMs + this.#everyMs <= atMs
  }

  /** @param point undefined: there was nothing to be said, and is not before the next one is due */
  add(atMs: number, point: Point | undefined): void {
    this.#newestAtMs = atMs
    if (!point) return
    const at = (this.#count++ % this.#points) * this.#columns
    this.#rows.set(
      point.map((value) => value ?? Number.NaN),
      at,
    )
  }

  /** Oldest first. */
  points(): Point[] {
    const length = Math.min(this.#count, this.#points)
    return Array.from({ length }, (_, index) => {
      const at = ((this.#count - length + index) % this.#points) * this.#columns
      const row = [...this.#rows.subarray(at, at + this.#columns)]
      return row.map((value) => (Number.isNaN(value) ? null : value))
    })
  }
}
