/** The worked examples of docs/delta-format.md, through the native engine and the oracle, both ways. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { applySync } from '../../src/delta/apply.ts'
import { type CodecName, codecNames } from '../../src/delta/codec.ts'
import { invariant } from '../../src/errors.ts'
import { packageRoot } from '../../src/memory/native.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { captureAll, contentOf, regionOf } from './memories.ts'
import { applyDelta, encodeDelta } from './oracle/delta.ts'

const pages = 3

interface Example {
  codec: CodecName
  whole: boolean
  before: Uint8Array
  after: Uint8Array
  delta: Uint8Array
}

function parse(block: string): Example {
  const before = new Uint8Array(pages * pageBytes)
  const writes: { at: number; bytes: Uint8Array }[] = []
  const delta: number[] = []
  let codec: CodecName | undefined
  let whole = false
  for (const line of block.trim().split('\n')) {
    const text = line.replace(/#.*/, '').trim()
    const [word, rest = ''] = text.split(/ (.*)/)
    if (word === 'codec') codec = codecNames.find((name) => name === rest)
    else if (word === 'whole') whole = true
    else if (word === 'before' || word === 'write') {
      const [, page, offset, bytes] = /^(\d+) (\d+): ([0-9a-f ]+)$/.exec(rest)!
      const write = { at: Number(page) * pageBytes + Number(offset), bytes: Uint8Array.from(hex(bytes!)) }
      if (word === 'before') before.set(write.bytes, write.at)
      else writes.push(write)
    } else delta.push(...hex(text))
  }
  invariant(codec, 'an example names its codec')
  const after = before.slice()
  for (const { at, bytes } of writes) after.set(bytes, at)
  return { codec, whole, before, after, delta: Uint8Array.from(delta) }
}

function hex(text: string): number[] {
  return text
    .trim()
    .split(/\s+/)
    .map((byte) => Number.parseInt(byte, 16))
}

const document = readFileSync(join(packageRoot, 'docs/delta-format.md'), 'utf8')
const examples = [...document.matchAll(/^```example\n([\s\S]*?)^```/gm)].map((match) => parse(match[1]!))

it('has examples of every codec', () => {
  expect(new Set(examples.map(({ codec }) => codec))).toEqual(new Set(codecNames))
})

describe.each(examples)('example $codec', ({ codec, whole, before, after, delta }) => {
  const ranges = PageRanges.all(pages)

  it('is what the oracle and the native engine write', () => {
    expect(Buffer.from(encodeDelta({ before, after, ranges, codec, whole }))).toEqual(Buffer.from(delta))
    using ram = regionOf(after)
    using shadow = regionOf(before)
    expect(captureAll(ram, shadow, ranges, { codec, whole }).map((bytes) => Buffer.from(bytes))).toEqual([
      Buffer.from(delta),
    ])
  })

  it('gives the memory, applied by either', () => {
    const copy = before.slice()
    applyDelta(copy, delta)
    expect(Buffer.compare(copy, after)).toBe(0)
    using image = regionOf(before)
    applySync(image, delta)
    expect(Buffer.compare(contentOf(image), after)).toBe(0)
  })
})
