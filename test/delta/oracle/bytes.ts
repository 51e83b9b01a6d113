/** Reading and writing of delta bytes: a cursor that never leaves its record, and unsigned LEB128. */

/** What an oracle decoder throws; the native decoder must refuse the same bytes. */
export class Malformed extends Error {}

export class Reader {
  readonly #bytes: Uint8Array
  #at: number
  readonly #end: number

  constructor(bytes: Uint8Array, from = 0, end = bytes.length) {
    this.#bytes = bytes
    this.#at = from
    this.#end = end
  }

  get left(): number {
    return this.#end - this.#at
  }

  byte(): number {
    return this.take(1)[0]!
  }

  take(count: number): Uint8Array {
    if (count > this.left) throw new Malformed('cut short')
    this.#at += count
    return this.#bytes.subarray(this.#at - count, this.#at)
  }

  /**
   * At most 32 bits, in the fewest bytes.
   * @param first its first byte, when that has been read already
   */
  uleb(first = this.byte()): number {
    let value = 0
    for (let scale = 1; scale < 2 ** 35; scale *= 128) {
      const byte = scale === 1 ? first : this.byte()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if ((byte === 0 && scale > 1) || value > 0xffffffff) break
        return value
      }
    }
    throw new Malformed('number')
  }
}

export function uleb(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 0x80)
  return [...bytes, rest]
}

export const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

/** One bit per element, the first in bit 0. */
export const bitsOf = (flags: readonly boolean[]): number =>
  flags.reduce((bits, flag, i) => (flag ? bits | (1 << i) : bits), 0)

/** Indexes of the set bits of a byte, ascending. */
export const setBits = (byte: number): number[] => [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => (byte >> bit) & 1)
