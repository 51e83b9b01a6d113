/**
 * Buffers of deltas that are used again. The memory of new ones is told to V8, which looks through all that it has for every few
 * dozen MiB of them: a fifth of all processor time while a guest was brought up.
 */
export const spareBytes = 2 ** 20
/** What needs less gets its own: whoever holds many of them counts bytes that are used. */
const leastBytes = (15 / 16) * spareBytes

export class SpareBuffers {
  readonly #free: Uint8Array[] = []
  readonly #kept: number

  /** @param kept at most so many for later; what a burst needed beyond is left to the garbage collector */
  constructor(kept: number) {
    this.#kept = kept
  }

  /** With anything in it. */
  take(bytes: number = spareBytes): Uint8Array {
    if (bytes < leastBytes || bytes > spareBytes) return new Uint8Array(bytes)
    return (this.#free.pop() ?? new Uint8Array(spareBytes)).subarray(0, bytes)
  }

  /** Nobody needs its bytes any more. To be said once. */
  keep({ buffer }: Uint8Array): void {
    if (buffer.byteLength === spareBytes && this.#free.length < this.#kept)
      this.#free.push(new Uint8Array(buffer))
  }
}

/** Of this process, which carries one guest. */
export const spareBuffers = new SpareBuffers(32)
