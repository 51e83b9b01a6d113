/** Numbers as bytes, as docs/trace-format.md has them: unsigned LEB128, and maps of lines by their non-zero bytes. */
import type { SubpageError } from 'subpage/errors'

const varintMax = 2 ** 53

/** Grows as needed; `take` gives the bytes and empties it. */
export class ByteWriter {
  #bytes = new Uint8Array(64 * 1024)
  #at = 0

  #room(count: number): void {
    if (this.#at + count <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(2 * this.#bytes.length, this.#at + count))
    grown.set(this.#bytes.subarray(0, this.#at))
    this.#bytes = grown
  }

  byte(value: number): void {
    this.#room(1)
    this.#bytes[this.#at++] = value
  }

  varint(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) throw new TypeError(`not a number for a trace: ${value}`)
    this.#room(8)
    let rest = value
    // Bit operations work on 32 bits only.
    while (rest >= 0x80) {
      this.#bytes[this.#at++] = (rest % 0x80) | 0x80
      rest = Math.floor(rest / 0x80)
    }
    this.#bytes[this.#at++] = rest
  }

  bytes(data: Uint8Array): void {
    this.#room(data.length)
    this.#bytes.set(data, this.#at)
    this.#at += data.length
  }

  text(value: string): void {
    const data = Buffer.from(value, 'utf8')
    this.varint(data.length)
    this.bytes(data)
  }

  /** A column that names each map's non-zero bytes, then those bytes. Shape of maps: two numbers for each page. */
  maps(maps: Uint32Array, pageCount: number): void {
    this.#room(9 * pageCount)
    const bytes = this.#bytes
    const tops = this.#at
    let at = tops + pageCount
    for (let page = 0; page < pageCount; page++) {
      let top = 0
      for (let half = 0; half < 2; half++) {
        const word = maps[2 * page + half]!
        if (word === 0) continue
        for (let i = 0; i < 4; i++) {
          const value = (word >>> (8 * i)) & 0xff
          if (value === 0) continue
          top |= 1 << (4 * half + i)
          bytes[at++] = value
        }
      }
      bytes[tops + page] = top
    }
    this.#at = at
  }

  /** A view that the next write to this writer overwrites. */
  take(): Uint8Array {
    const taken = this.#bytes.subarray(0, this.#at)
    this.#at = 0
    return taken
  }
}

/** Reads what ByteWriter wrote; whatever does not fit throws with the words of `damaged`. */
export class ByteReader {
  readonly #bytes: Uint8Array
  readonly #damaged: (what: string) => SubpageError
  #at = 0

  constructor(bytes: Uint8Array, damaged: (what: string) => SubpageError) {
    this.#bytes = bytes
    this.#damaged = damaged
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  byte(): number {
    if (this.#at >= this.#bytes.length) throw this.#damaged('a record ends too early')
    return this.#bytes[this.#at++]!
  }

  /** @param limit the greatest number that makes sense here */
  varint(limit = varintMax - 1): number {
    let value = 0
    let scale = 1
    for (;;) {
      const byte = this.byte()
      value += (byte & 0x7f) * scale
      if (value > limit) throw this.#damaged(`a number is larger than ${limit}`)
      if (byte < 0x80) return value
      scale *= 0x80
      if (scale >= varintMax) throw this.#damaged('a number is too long')
    }
  }

  bytes(count: number): Uint8Array {
    if (count > this.left) throw this.#damaged('a record ends too early')
    this.#at += count
    return this.#bytes.subarray(this.#at - count, this.#at)
  }

  text(): string {
    return Buffer.from(this.bytes(this.varint(this.left))).toString('utf8')
  }

  maps(pageCount: number): Uint32Array {
    const tops = this.bytes(pageCount)
    const maps = new Uint32Array(2 * pageCount)
    for (let page = 0; page < pageCount; page++) {
      const top = tops[page]!
      if (top === 0) continue
      for (let i = 0; i < 8; i++) {
        if (((top >>> i) & 1) === 0) continue
        const at = 2 * page + (i >>> 2)
        maps[at] = (maps[at]! | (this.byte() << (8 * (i & 3)))) >>> 0
      }
    }
    return maps
  }

  /** Nothing may be left over. */
  end(): void {
    if (this.left > 0) throw this.#damaged(`a record has ${this.left} bytes too many`)
  }
}
