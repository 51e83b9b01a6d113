/** Files that somebody hands over: traces, raw images, ELF cores, and the log that the plugin inside QEMU writes. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as layout from 'subpage-lab/plugin/layout'
import { PluginShare } from 'subpage-lab/plugin/share'
import { readTrace, type TraceHeader } from 'subpage-lab/trace'
import { type BlockKind, blockKinds, encodeBlock, magic } from 'subpage-lab/trace/block'
import { ByteWriter } from 'subpage-lab/trace/bytes'
import { openImage } from '../../src/memory/images/memory-image.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { bent, content, maybeBent, oneIn, pick, type SeededRandom, type Target } from './target.ts'

/** A target that gives its parser a file. */
function fileTarget(
  name: string,
  refusals: readonly string[],
  make: (random: SeededRandom) => Uint8Array,
  read: (path: string, random: SeededRandom) => void,
): Target {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-fuzz-'))
  const path = join(folder, name)
  return {
    name,
    refusals,
    once(random) {
      const bytes = make(random)
      writeFileSync(path, oneIn(random, 3) ? bent(random, bytes) : bytes)
      read(path, random)
    },
    close: () => rmSync(folder, { recursive: true }),
  }
}

// ---- traces ----

function traceHeader(random: SeededRandom): TraceHeader {
  return {
    format: 1,
    target: { kind: 'vm', name: 'web' },
    tracker: 'userfault',
    epochUs: 10_000,
    memoryBytes: 2 ** 20,
    written: oneIn(random, 2),
    content: oneIn(random, 2),
    counters: pick(random, [[], ['logFull'], ['__proto__', 'a']]),
    notes: [],
    host: { name: 'h', kernel: 'k', cpu: 'c' },
    release: '0',
    startedAt: '2026-01-01T00:00:00.000Z',
  }
}

function epoch(random: SeededRandom, header: TraceHeader): Uint8Array {
  const writer = new ByteWriter()
  for (let i = 0; i < 3 + header.counters.length; i++) writer.varint(random.integer(0, 2 ** 31 - 1))
  const runs = random.integer(0, 20)
  writer.varint(runs)
  let count = 0
  for (let run = 0; run < runs; run++) {
    writer.varint(random.integer(1, oneIn(random, 4) ? 2 ** 31 - 1 : 50))
    const more = random.integer(0, 5)
    writer.varint(more)
    count += more + 1
  }
  const maps = () =>
    Uint32Array.from({ length: 2 * count }, () => (oneIn(random, 2) ? 0 : random.integer(0, 2 ** 32 - 1)))
  const changed = maps()
  writer.maps(changed, count)
  for (let page = 0; page < count; page++)
    if (changed[2 * page] || changed[2 * page + 1]) writer.varint(random.integer(0, pageBytes))
  if (header.written) writer.maps(maps(), count)
  return Uint8Array.from(writer.take())
}

function record(
  random: SeededRandom,
  kind: BlockKind,
  header: TraceHeader,
  epochs: number,
  gaps: number,
): Uint8Array {
  const writer = new ByteWriter()
  switch (kind) {
    case 'header':
      return Buffer.from(JSON.stringify(header))
    case 'epoch':
      return epoch(random, header)
    case 'areas':
      writer.varint(1)
      for (const number of [0, 256, 2 ** 40]) writer.varint(number)
      writer.text('ram')
      break
    case 'gap':
      for (const number of [1, 2]) writer.varint(number)
      writer.byte(random.integer(0, 2))
      writer.varint(3)
      writer.text('late')
      break
    case 'end':
      for (const number of [epochs, gaps, 9]) writer.varint(number)
      writer.byte(random.integer(0, 3))
      break
    default:
      return content(random, random.integer(0, 300))
  }
  return Uint8Array.from(writer.take())
}

function makeTrace(random: SeededRandom): Uint8Array {
  const header = traceHeader(random)
  const middle = Array.from({ length: random.integer(0, 12) }, () =>
    pick(random, ['areas', 'base', 'content', 'epoch', 'epoch', 'gap'] as const),
  )
  const kinds: BlockKind[] = ['header', ...middle, 'end']
  if (oneIn(random, 8))
    kinds.splice(random.integer(0, kinds.length - 1), 1, pick(random, Object.keys(blockKinds) as BlockKind[]))
  const count = (kind: BlockKind) => kinds.filter((other) => other === kind).length
  const blocks = kinds.map((kind) => {
    const body = record(random, kind, header, count('epoch'), count('gap'))
    return { kind, body: oneIn(random, 6) ? bent(random, body) : body }
  })
  return Buffer.concat([
    magic,
    ...blocks.flatMap(({ kind, body }) => encodeBlock(kind, body, oneIn(random, 2))),
  ])
}

export const traces = (): Target =>
  fileTarget('traces', ['TRACE_MALFORMED', 'BAD_ARGUMENT'], makeTrace, (path) => {
    const trace = readTrace(path)
    for (const { dirty, changedBytes } of trace.epochs())
      if (changedBytes.length !== dirty.pageCount) throw new Error('an epoch of another shape')
    trace.areas()
    for (const bytes of trace.base()) void bytes.length
    trace.end()
  })

// ---- images ----

const largest = 64 * pageBytes

/** All of it, as far as it is worth reading: what an image claims may be far more than its file has. */
function readImage(path: string, random: SeededRandom): void {
  const image = openImage(path)
  try {
    let end = 0
    for (const { firstPage, pageCount } of image.areas) {
      if (firstPage !== end || pageCount < 1) throw new Error('areas do not follow each other')
      end += pageCount
    }
    if (end !== image.pageCount || image.held.endPage > end) throw new Error('pages outside of the image')
    const into = new Uint8Array(Math.min(largest, image.pageCount * pageBytes))
    const last = image.pageCount - into.length / pageBytes
    for (const first of [0, last, random.integer(0, Math.min(last, 2 ** 31))]) image.read(first, into)
  } finally {
    image.close()
  }
}

function makeCore(random: SeededRandom): Uint8Array {
  const count = oneIn(random, 20) ? random.integer(0, 3000) : random.integer(0, 12)
  const beyond = oneIn(random, 10)
  const header = Buffer.alloc(64)
  header.write('\x7fELF\x02\x01\x01', 0, 'latin1')
  header.writeUInt16LE(4, 16)
  header.writeUInt16LE(62, 18)
  header.writeBigUInt64LE(64n, 32)
  header.writeUInt16LE(56, 54)
  header.writeUInt16LE(beyond ? 0xffff : count, 56)
  const table = Buffer.alloc(56 * count)
  const dataAt = 64 + table.length + 64
  let address = BigInt(random.integer(0, 100)) * 4096n
  let dataBytes = 0
  for (let i = 0; i < count; i++) {
    const pages = random.integer(0, 6)
    const held = oneIn(random, 3) ? random.integer(0, pages * pageBytes) : pages * pageBytes
    table.writeUInt32LE(oneIn(random, 8) ? 4 : 1, 56 * i)
    table.writeBigUInt64LE(BigInt(dataAt + dataBytes), 56 * i + 8)
    table.writeBigUInt64LE(address, 56 * i + 16)
    if (oneIn(random, 3)) table.writeBigUInt64LE(address, 56 * i + 24)
    table.writeBigUInt64LE(BigInt(held), 56 * i + 32)
    table.writeBigUInt64LE(BigInt(pages * pageBytes), 56 * i + 40)
    if (dataBytes < 2 ** 18) dataBytes += held
    address += BigInt(pages + random.integer(-1, 40)) * 4096n
    if (address < 0n) address = 0n
  }
  const section = Buffer.alloc(64)
  if (beyond) {
    header.writeBigUInt64LE(BigInt(64 + table.length), 40)
    section.writeUInt32LE(oneIn(random, 4) ? random.integer(0, 2 ** 32 - 1) : count, 44)
  }
  return Buffer.concat([
    maybeBentSeldom(random, header),
    maybeBentSeldom(random, table),
    section,
    content(random, dataBytes),
  ])
}

const maybeBentSeldom = (random: SeededRandom, form: Uint8Array) =>
  oneIn(random, 4) ? bent(random, form) : form

const imageRefusals = ['IMAGE_MALFORMED', 'BAD_ARGUMENT']

export const cores = (): Target => fileTarget('cores', imageRefusals, makeCore, readImage)

/** Of known kinds by their first bytes, and of none. */
const beginnings = [
  '',
  'KDUMP   ',
  'makedumpfile',
  'LibvirtQemudSave',
  'QEVM',
  'EMiL',
  'AVML',
  '\x1f\x8b',
  '\x28\xb5\x2f\xfd',
  '\xfd7zXZ',
  '\x7fELF',
]

export const images = (): Target =>
  fileTarget(
    'images',
    imageRefusals,
    (random) => {
      const image = content(
        random,
        random.integer(0, 20) * pageBytes + (oneIn(random, 4) ? random.integer(0, 4095) : 0),
      )
      image.write(pick(random, beginnings), 0, 'latin1')
      return image
    },
    readImage,
  )

// ---- the plugin's log ----

function makeLog(random: SeededRandom): Uint8Array {
  const pages = random.integer(1, 600)
  const parts = random.integer(1, 15)
  const { offsets, bytes } = layout.shareLayout(parts, pages)
  const share = Buffer.alloc(bytes)
  share.writeBigUInt64LE(layout.shareMagic, layout.headerAt.magic)
  share.writeUInt32LE(layout.shareFormat, layout.headerAt.format)
  share.writeUInt32LE(parts, layout.headerAt.parts)
  for (const [field, value] of [
    [layout.headerAt.pages, pages],
    [layout.headerAt.bytes, bytes],
    [layout.headerAt.vcpusOffset, offsets.vcpus],
    [layout.headerAt.linesOffset, offsets.lines],
    [layout.headerAt.dirtyOffset, offsets.dirty],
    [layout.headerAt.countsOffset, offsets.counts],
    [layout.headerAt.readOffset, offsets.read],
    [layout.headerAt.storedOffset, offsets.stored],
  ] as const)
    share.writeBigUInt64LE(BigInt(value), field)
  for (let marks = random.integer(0, 200); marks > 0; marks--)
    share[random.integer(layout.headerBytes, bytes - 1)] = random.integer(0, 255)
  return Buffer.concat([
    maybeBent(random, share.subarray(0, layout.headerBytes)).subarray(0, 112),
    share.subarray(112),
  ])
}

export const pluginLogs = (): Target =>
  fileTarget('plugin-logs', ['TRACKER_UNAVAILABLE', 'BAD_ARGUMENT'], makeLog, (path) => {
    const share = PluginShare.open(path)
    try {
      void [share.active, share.unknown, share.tlbEntries]
      if (share.has('lines')) {
        share.markedPages()
        share.takeLines(PageRanges.all(share.pages))
      }
      if (share.has('pml')) share.takePages('dirty')
      if (share.has('prl')) share.takeCounts()
      if (share.has('accesses')) {
        share.takePages('read')
        share.takePages('stored')
      }
      for (const log of ['pml', 'prl'] as const) {
        share.logCounts(log)
        share.emptyLogs(log)
      }
      share.emptyTlbs()
    } finally {
      share.close()
    }
  })
