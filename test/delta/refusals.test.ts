/** One hand-made delta for every rule of docs/delta-format.md, "What a decoder refuses"; and its nearest sound neighbour. */
import { describe, expect, it } from 'vitest'
import { applySync, checkDelta } from '../../src/delta/apply.ts'
import { type CodecName, codecNumbers } from '../../src/delta/codec.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { contentOf, noise, regionOf } from './memories.ts'
import { applyDelta } from './oracle/delta.ts'

const pages = 3

function delta(codec: CodecName, body: readonly number[], records = 1): Uint8Array {
  const bytes = new Uint8Array(16 + body.length + 8)
  bytes.set([0x53, 0x44, 1, codecNumbers[codec]])
  new DataView(bytes.buffer).setUint32(8, records, true)
  new DataView(bytes.buffer).setUint32(12, body.length, true)
  bytes.set(body, 16)
  return bytes
}

/** Masks of so many words that name so many bytes in all, each at least one. */
function costly(bytes: number, words = 8): number[] {
  return Array.from({ length: words }, (_, word) => 2 ** Math.floor((bytes + word) / words) - 1)
}

const many = (count: number) => new Array<number>(count).fill(9)
const sound = delta('masked', [0, 1, 1, 1, 1, 7])
const changed = (at: number, byte: number) => sound.with(at, byte)

const refused: [what: string, Uint8Array][] = [
  ['magic', changed(0, 0)],
  ['version', changed(2, 2)],
  ['codec', changed(3, 4)],
  ['flag', changed(4, 2)],
  ['reserved byte', changed(6, 1)],
  ['length', changed(12, 5)],
  ['closing zeros', changed(sound.length - 1, 1)],
  ['fewer records than claimed', changed(8, 2)],
  ['more records than claimed', changed(8, 0)],
  ['page outside', delta('masked', [3, 0, 0])],
  ['page outside, by a later gap', delta('masked', [2, 0, 0, 0, 0, 0], 2)],
  ['gap longer than needed', delta('masked', [0x80, 0, 0, 0])],
  ['gap of 33 bits', delta('masked', [0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0])],
  ['gap without end', delta('masked', [0x80])],
  ['record without a byte', delta('masked', [0])],
  ['kind missing', delta('masked', [0, 0])],
  ['kind 2', delta('masked', [0, 0, 2])],
  ['raw page cut short', delta('page', [0, 0, 1, ...many(4095)])],
  ['record of `page` with a first byte', delta('page', [0, 1, ...many(4096)])],
  ['line map byte that is zero', delta('line', [0, 1, 0, ...many(64)])],
  ['line map cut short', delta('line', [0, 3, 1])],
  ['line cut short', delta('line', [0, 1, 1, ...many(63)])],
  ['bytes behind the last line', delta('line', [0, 1, 1, ...many(65)])],
  ['words cut short', delta('masked', [0, 1, 3, 1])],
  ['masks cut short', delta('masked', [0, 1, 1, 3, 1])],
  ['word without a byte', delta('masked', [0, 1, 1, 3, 1, 0, 7])],
  ['packed bytes cut short', delta('masked', [0, 1, 1, 1, 3, 7])],
  ['whole line cut short', delta('masked', [0, 1, 1, 0, ...many(63)])],
  ['whole line that ate the packed bytes', delta('masked', [0, 1, 3, 0, 1, 1, ...many(64)])],
  ['line of 64 bytes by its words', delta('masked', [0, 1, 1, 255, ...costly(56), ...many(56)])],
  ['line of 72 bytes by its words', delta('masked', [0, 1, 1, 255, ...costly(64), ...many(64)])],
  [
    'line of 64 bytes by its words, behind cheap and whole ones',
    delta('masked', [
      0,
      1,
      15,
      1,
      0,
      127,
      255,
      1,
      ...costly(49, 7),
      ...costly(56),
      ...many(64 + 1 + 49 + 56),
    ]),
  ],
  ['all lines of a page', delta('line', [0, 255, ...many(8).fill(255), ...many(4096)])],
  ['runs of 4096 bytes', delta('xor-rle', [0, 0x80, 0x20, 0, 0xfd, 0x1f, ...many(4093)])],
  ['runs longer than the body', delta('xor-rle', [0, 4, 0, 1, 9])],
  ['length of runs longer than needed', delta('xor-rle', [0, 0x83, 0, 0, 1, 9])],
  ['equal run alone', delta('xor-rle', [0, 1, 5])],
  ['changed run of nothing', delta('xor-rle', [0, 2, 5, 0])],
  ['equal run of nothing, later', delta('xor-rle', [0, 6, 0, 1, 9, 0, 1, 9])],
  ['equal run out of the page', delta('xor-rle', [0, 4, 0x81, 0x20, 1, 9])],
  ['changed run out of the page', delta('xor-rle', [0, 5, 0xff, 0x1f, 2, 9, 9])],
  ['changed run out of its record', delta('xor-rle', [0, 3, 0, 2, 9, 9])],
  ['run of 32 bits', delta('xor-rle', [0, 8, 0xff, 0xff, 0xff, 0xff, 0x0f, 2, 9, 9])],
]

const accepted: [what: string, Uint8Array][] = [
  ['the one that is damaged above', sound],
  ['no record', delta('masked', [], 0)],
  ['last page', delta('masked', [2, 0, 0])],
  ['raw page', delta('page', [0, 0, 1, ...many(4096)])],
  ['line', delta('line', [0, 1, 1, ...many(64)])],
  ['whole line', delta('masked', [0, 1, 1, 0, ...many(64)])],
  ['whole line and packed bytes', delta('masked', [0, 1, 3, 0, 1, 1, ...many(65)])],
  ['line of 63 bytes by its words', delta('masked', [0, 1, 1, 255, ...costly(55), ...many(55)])],
  ['line of 63 bytes by seven words', delta('masked', [0, 1, 1, 127, ...costly(56, 7), ...many(56)])],
  ['all lines but one', delta('line', [0, 255, ...many(7).fill(255), 127, ...many(4032)])],
  ['runs of 4095 bytes', delta('xor-rle', [0, 0xff, 0x1f, 0, 0xfc, 0x1f, ...many(4092)])],
  ['last byte of a page', delta('xor-rle', [0, 4, 0xff, 0x1f, 1, 9])],
  ['two runs', delta('xor-rle', [0, 6, 0, 1, 9, 1, 1, 9])],
]

const before = noise(11, pages * pageBytes)

describe.each(refused)('%s', (_, bytes) => {
  it('is refused by both, and nothing is written', () => {
    using image = regionOf(before)
    expect(() => checkDelta(bytes, pages)).toThrow(expect.objectContaining({ code: 'DELTA_MALFORMED' }))
    expect(() => applySync(image, bytes)).toThrow(expect.objectContaining({ code: 'DELTA_MALFORMED' }))
    expect(Buffer.compare(contentOf(image), before)).toBe(0)
    const copy = before.slice()
    expect(() => applyDelta(copy, bytes)).toThrow()
    expect(Buffer.compare(copy, before)).toBe(0)
  })
})

describe.each(accepted)('%s', (_, bytes) => {
  it('is accepted by both, with one result', () => {
    using image = regionOf(before)
    const copy = before.slice()
    expect(applySync(image, bytes)).toEqual(applyDelta(copy, bytes))
    expect(Buffer.compare(contentOf(image), copy)).toBe(0)
  })
})
