/**
 * The ways in which pages change, each as pairs of a page before and after. Deterministic: one seed, one xorshift.
 * The mix is the one of facts/performance.md.
 */
import { lineBytes, linesPerPage, pageBytes } from '../src/memory/page.ts'

export interface PagePairs {
  pages: number
  before: Uint8Array
  after: Uint8Array
}

class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed | 1
  }

  u32(): number {
    this.#state ^= this.#state << 13
    this.#state ^= this.#state >>> 17
    this.#state ^= this.#state << 5
    return this.#state >>> 0
  }

  below(n: number): number {
    return Math.floor((this.u32() / 2 ** 32) * n)
  }

  fill(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i += 4) {
      const value = this.u32()
      bytes[i] = value
      bytes[i + 1] = value >>> 8
      bytes[i + 2] = value >>> 16
      bytes[i + 3] = value >>> 24
    }
  }

  /** `n` different numbers below `limit`. */
  some(n: number, limit: number): number[] {
    const numbers = Array.from({ length: limit }, (_, i) => i)
    for (let i = 0; i < n; i++) {
      const other = i + this.below(limit - i)
      const swapped = numbers[i]!
      numbers[i] = numbers[other]!
      numbers[other] = swapped
    }
    return numbers.slice(0, n)
  }
}

const words =
  'the memory of a guest that runs on one host is kept on a second host by sending only the bytes which changed'.split(
    ' ',
  )

function text(random: Random, page: Uint8Array): void {
  for (let at = 0; at < page.length; ) {
    const word = words[random.below(words.length)]!
    for (let i = 0; i < word.length && at < page.length; i++) page[at++] = word.charCodeAt(i)
    if (at < page.length) page[at++] = 32
  }
}

/** Bytes with the skew of machine code: few values make up most of it. */
const opcodes = [0x48, 0x8b, 0x89, 0x0f, 0x00, 0xe8, 0xff, 0x83, 0xc0, 0x74, 0x24, 0x41]

function code(random: Random, page: Uint8Array): void {
  for (let i = 0; i < page.length; i++)
    page[i] = random.below(4) ? opcodes[random.below(opcodes.length)]! : random.u32()
}

type Change = (random: Random, before: Uint8Array, after: Uint8Array) => void

const lines =
  (count: number): Change =>
  (random, _before, after) => {
    for (const line of random.some(count, linesPerPage))
      random.fill(after.subarray(line * lineBytes, (line + 1) * lineBytes))
  }

/** 64-bit words, as pointers and lengths are written. */
const wordWrites =
  (count: number): Change =>
  (random, _before, after) => {
    for (const word of random.some(count, pageBytes / 8))
      random.fill(after.subarray(word * 8, (word + 1) * 8))
  }

/** 128 additions of one to 32-bit numbers anywhere. */
const counters: Change = (random, _before, after) => {
  const numbers = new Uint32Array(after.buffer, after.byteOffset, pageBytes / 4)
  for (let i = 0; i < 128; i++) numbers[random.below(numbers.length)]! += 1
}

const zeroToText: Change = (random, before, after) => {
  before.fill(0)
  text(random, after)
}

const textToText: Change = (random, before, after) => {
  text(random, before)
  text(random, after)
}

const codeToZero: Change = (random, before, after) => {
  code(random, before)
  after.fill(0)
}

const nothing: Change = () => {}

/** Shares in percent. */
const mix: readonly (readonly [percent: number, Change])[] = [
  [10, nothing],
  [15, wordWrites(1)],
  [20, wordWrites(8)],
  [5, wordWrites(64)],
  [5, counters],
  [10, lines(1)],
  [10, lines(8)],
  [10, lines(32)],
  [5, lines(64)],
  [6, zeroToText],
  [4, textToText],
]

const mixed: Change = (random, before, after) => {
  let draw = random.below(100)
  for (const [percent, change] of mix) {
    draw -= percent
    if (draw < 0) return change(random, before, after)
  }
}

const patterns = {
  mix: mixed,
  none: nothing,
  'lines-1': lines(1),
  'lines-8': lines(8),
  'lines-32': lines(32),
  'lines-64': lines(64),
  'words-1': wordWrites(1),
  'words-8': wordWrites(8),
  'words-64': wordWrites(64),
  counters,
  'zero-text': zeroToText,
  'text-text': textToText,
  'code-zero': codeToZero,
} as const satisfies Record<string, Change>

export type PatternName = keyof typeof patterns

export const patternNames = Object.keys(patterns) as PatternName[]

export function makePairs(pattern: PatternName, pages: number): PagePairs {
  const random = new Random(0x5eed)
  const before = new Uint8Array(pages * pageBytes)
  random.fill(before)
  const after = before.slice()
  for (let at = 0; at < before.length; at += pageBytes)
    patterns[pattern](random, before.subarray(at, at + pageBytes), after.subarray(at, at + pageBytes))
  return { pages, before, after }
}
