/** A trace comes back as it was written, and whatever is not whole or not ours is refused with words that help. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { SubpageError } from 'subpage/errors'
import { limits } from 'subpage/limits'
import { PageRanges } from 'subpage/memory/page-ranges'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { encodeBlock, magic } from '../src/trace/block.ts'
import { type NewEpoch, readTrace, type TraceEpoch, type TraceHeader, TraceWriter } from '../src/trace.ts'

let folder: string
let path: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-trace-'))
  path = join(folder, 'a.trace')
})
afterEach(() => rmSync(folder, { recursive: true }))

const header: TraceHeader = {
  format: 1,
  target: { kind: 'vm', name: 'web' },
  tracker: 'userfault',
  epochUs: 10_000,
  memoryBytes: 2 ** 30,
  written: true,
  content: true,
  counters: ['logFull'],
  notes: ['device DMA is seen by the page only'],
  host: { name: 'h', kernel: '6.18', cpu: 'x' },
  release: '0.1.0',
  startedAt: '2026-01-01T00:00:00.000Z',
}

const epochOf = (pages: number[], seed = 1): NewEpoch => {
  const dirty = PageRanges.of(pages.map((page) => [page, 1]))
  const maps = Uint32Array.from(
    { length: 2 * dirty.pageCount },
    (_, i) => ((i + seed) * 0x9e3779b1) >>> (i % 29),
  )
  return {
    startUs: 10_000 * seed,
    lengthUs: 10_000,
    pauseUs: 300,
    dirty,
    changedMaps: maps,
    changedBytes: Uint16Array.from({ length: dirty.pageCount }, (_, page) =>
      maps[2 * page] || maps[2 * page + 1] ? (page * 7 + seed) % 4097 : 0,
    ),
    writtenMaps: maps.map((word) => word | 1),
    counters: { logFull: seed },
  }
}

/** Writes a small whole trace. */
function write(): void {
  const writer = new TraceWriter(path, header)
  writer.areas([{ firstPage: 0, pageCount: 2 ** 18, address: 0, name: 'ram' }])
  writer.base(new Uint8Array([1, 2, 3]))
  writer.content(new Uint8Array([4, 5]))
  writer.epoch(epochOf([0, 1, 2, 500, 70_000]))
  writer.note('a device is seen by the page only')
  writer.gap({ startUs: 1, lengthUs: 2, cause: 'late', epochsMissed: 3, reason: 'slow' })
  writer.gap({ startUs: 3, lengthUs: 4, cause: 'lost', epochsMissed: 1, reason: 'harvested by another' })
  writer.epoch(epochOf([], 2))
  writer.end('interrupted', 20_600)
}

describe('a trace', () => {
  test('comes back as it was written, as often as asked', () => {
    write()
    const trace = readTrace(path)
    expect(trace.header).toEqual(header)
    expect(trace.areas()).toEqual([{ firstPage: 0, pageCount: 2 ** 18, address: 0, name: 'ram' }])
    expect([...trace.base()]).toEqual([Buffer.from([1, 2, 3])])
    expect(trace.notes()).toEqual([
      'device DMA is seen by the page only',
      'a device is seen by the page only',
    ])
    expect(trace.end()).toEqual({ epochCount: 2, gapCount: 2, lengthUs: 20_600, cause: 'interrupted' })
    for (let round = 0; round < 2; round++) {
      const [first, second] = [...trace.epochs()] as [TraceEpoch, TraceEpoch]
      const { dirty, ...rest } = epochOf([0, 1, 2, 500, 70_000])
      expect(first).toMatchObject({ index: 0, ...rest, content: [Buffer.from([4, 5])], gapBefore: undefined })
      expect([...first.dirty]).toEqual([...dirty])
      expect(second.gapBefore).toEqual({
        startUs: 1,
        lengthUs: 6,
        cause: 'lost',
        epochsMissed: 4,
        reason: 'slow; harvested by another',
      })
      expect(second.content).toEqual([])
    }
  })

  test('of any pages and maps comes back', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(2 ** 32 - 2), { maxLength: 300 }), fc.nat(1e6), (pages, seed) => {
        const writer = new TraceWriter(path, { ...header, content: false }, { replace: true })
        const written = epochOf(pages, seed)
        writer.epoch(written)
        writer.end('time', 1)
        const [read] = [...readTrace(path).epochs()]
        expect([...read!.dirty]).toEqual([...written.dirty])
        expect(read!.changedMaps).toEqual(written.changedMaps)
        expect(read!.changedBytes).toEqual(written.changedBytes)
        expect(read!.writtenMaps).toEqual(written.writtenMaps)
      }),
      { numRuns: 60 },
    )
  })

  test('is not written over unless that is asked for', () => {
    write()
    expect(() => new TraceWriter(path, header)).toThrow(expect.objectContaining({ code: 'FILE_EXISTS' }))
    new TraceWriter(path, header, { replace: true }).end('time', 0)
    expect(readTrace(path).end().epochCount).toBe(0)
  })

  test('that nobody ended is gone when it is abandoned', () => {
    const writer = new TraceWriter(path, header)
    writer.abandon()
    writer.abandon()
    expect(() => readTrace(path)).toThrow(/there is no file/)
  })
})

test('of a file that is cut anywhere the whole epochs are read, and the end says so', () => {
  write()
  const all = [...readTrace(path).epochs()]
  const { gapCount } = readTrace(path).end()
  const whole = readFileSync(path)
  let most = 0
  for (let length = whole.length - 1; length >= 0; length--) {
    truncateSync(path, length)
    let trace: ReturnType<typeof readTrace>
    let epochs: TraceEpoch[]
    try {
      trace = readTrace(path)
      epochs = [...trace.epochs()]
    } catch (error) {
      expect(error, `cut to ${length}`).toMatchObject({
        code: 'TRACE_MALFORMED',
        message: expect.stringMatching(/cut short|empty|not a trace/),
      })
      continue
    }
    expect(epochs).toEqual(all.slice(0, epochs.length))
    expect(epochs.length).toBeGreaterThan(0)
    most = Math.max(most, epochs.length)
    const last = epochs.at(-1)!
    const end = trace.end()
    expect(end).toMatchObject({
      cause: 'cut-short',
      epochCount: epochs.length,
      lengthUs: last.startUs + last.lengthUs,
    })
    expect(end.gapCount).toBeLessThanOrEqual(gapCount)
  }
  expect(most).toBe(all.length)
})

test('a recording that fails keeps its whole epochs; without one nothing is left', () => {
  const writer = new TraceWriter(path, header)
  expect(writer.fail(new SubpageError('NO_SPACE', 'full'))).toMatchObject({ message: 'full' })
  expect(() => readTrace(path)).toThrow(/there is no file/)
  for (const old of [undefined, 'precious']) {
    if (old !== undefined) writeFileSync(path, old)
    const other = new TraceWriter(path, header, { replace: true })
    other.epoch(epochOf([1, 2, 5]))
    other.gap({ startUs: 20_000, lengthUs: 5, cause: 'late', epochsMissed: 1, reason: 'late' })
    other.content(new Uint8Array(1000))
    const where = old === undefined ? path : `${path}.part`
    expect(other.fail(new SubpageError('NO_SPACE', 'full'))).toMatchObject({
      code: 'NO_SPACE',
      message: `full; what was recorded until then (1 epoch) is in ${where}`,
    })
    expect(readTrace(where).end()).toEqual({
      epochCount: 1,
      gapCount: 0,
      lengthUs: 20_000,
      cause: 'interrupted',
    })
    if (old !== undefined) expect(readFileSync(path, 'utf8')).toBe(old)
    rmSync(where)
  }
})

describe('a reader refuses', () => {
  const readAll = () => {
    const trace = readTrace(path)
    return [[...trace.epochs()], trace.end()]
  }
  const endOf = () => {
    try {
      return readTrace(path).end()
    } catch {
      return undefined // Refused.
    }
  }
  const malformed = (words: RegExp) =>
    expect.objectContaining({ code: 'TRACE_MALFORMED', message: expect.stringMatching(words) })

  test('a file with any byte changed', () => {
    write()
    const whole = readFileSync(path)
    for (let at = 0; at < whole.length; at++) {
      const changed = Buffer.from(whole)
      changed[at]! ^= 0x11
      writeFileSync(path, changed)
      // A length that leads past the end of the file cannot be told from a file that was cut.
      const cut = endOf()?.cause === 'cut-short'
      if (!cut) expect(readAll, `byte ${at}`).toThrow(malformed(/damaged|not a trace|cut short/))
    }
  })

  test('a foreign file, an empty file, no file, a folder', () => {
    writeFileSync(path, 'PK\u0003\u0004 something else')
    expect(readAll).toThrow(malformed(/is not a trace/))
    writeFileSync(path, '')
    expect(readAll).toThrow(malformed(/is empty/))
    expect(() => readTrace(join(folder, 'none'))).toThrow(/there is no file/)
    expect(() => readTrace(folder)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  })

  test('another format, a header that is not one, records that make no sense', () => {
    const file = (...blocks: Parameters<typeof encodeBlock>[]) =>
      writeFileSync(path, Buffer.concat([magic, ...blocks.flatMap((block) => encodeBlock(...block))]))
    const json = (value: unknown) => Buffer.from(JSON.stringify(value))
    file(['header', json({ ...header, format: 2 }), false])
    expect(readAll).toThrow(malformed(/format 2; this release reads format 1/))
    file(['header', json({ format: 1 }), false])
    expect(readAll).toThrow(malformed(/header lacks/))
    file(['header', Buffer.from('{'), false])
    expect(readAll).toThrow(malformed(/not JSON/))
    // 2^32 pages in nine bytes: named, not described.
    const huge = Buffer.from([0, 0, 0, 0, 1, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f])
    file(['header', json(header), false], ['epoch', huge, false])
    expect(readAll).toThrow(malformed(/more pages than it describes/))
    // A body that is longer than any: refused before memory is taken for it, whatever the file holds.
    const [long] = encodeBlock('epoch', Buffer.alloc(64), false)
    Buffer.from(long.buffer, long.byteOffset).writeUInt32LE(limits.traceBodyBytes.value + 1, 8)
    writeFileSync(
      path,
      Buffer.concat([magic, ...encodeBlock('header', json(header), false), long, Buffer.alloc(64)]),
    )
    const before = process.memoryUsage().arrayBuffers
    expect(readAll).toThrow(malformed(/a length is impossible/))
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 24)
    file(['header', json(header), false], ['epoch', Buffer.from([0xff, 0xff]), false])
    expect(readAll).toThrow(malformed(/ends too early/))
  })
})

test('a pipe is refused at once, though nobody writes to it', () => {
  execFileSync('mkfifo', [path])
  expect(() => readTrace(path)).toThrow(
    expect.objectContaining({
      code: 'BAD_ARGUMENT',
      message: expect.stringContaining(`${path} is a pipe, not a file`),
    }),
  )
})
