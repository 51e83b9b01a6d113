/** A series of images becomes a trace that holds what changed between them. */
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { applySync } from 'subpage/delta/apply'
import { pageBytes } from 'subpage/memory/page'
import { Region } from 'subpage/memory/region'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { elfCore } from '../../test/memory/images/elf.ts'
import { summarize } from '../src/analysis/summary.ts'
import { type Holes, recordImages } from '../src/record/images.ts'
import { readTrace } from '../src/trace.ts'

let folder: string
const file = (name: string) => join(folder, name)
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-series-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const pages = 300

/** A sparse file of `pages` pages with these bytes: [page, offset in it, value]. */
function sparse(name: string, writes: [page: number, at: number, value: number][], size = pages): string {
  const fd = openSync(file(name), 'w')
  ftruncateSync(fd, size * pageBytes)
  for (const page of new Set(writes.map(([page]) => page))) {
    const data = new Uint8Array(pageBytes)
    for (const [of, at, value] of writes) if (of === page) data[at] = value
    writeSync(fd, data, 0, pageBytes, page * pageBytes)
  }
  closeSync(fd)
  return file(name)
}

const record = (paths: string[], holes?: Holes) =>
  recordImages(paths, holes, { path: file('trace'), replace: true, content: true, progress: () => undefined })

test('diff snapshots on a full one: holes are what did not change', async () => {
  const full = sparse('full', [
    [3, 0, 1],
    [290, 5, 9],
  ])
  const diff = sparse('diff', [
    [3, 64, 7],
    [4, 4095, 1],
  ])
  const summary = await record([full, diff], 'unchanged')
  expect(summary).toMatchObject({ epochs: 1, dirtyPages: 2, changedLines: 3 })
  const trace = readTrace(file('trace'))
  expect(trace.header).toMatchObject({ tracker: 'images', epochUs: 0, target: { kind: 'images' } })
  const [epoch] = [...trace.epochs()]
  expect([...epoch!.dirty.pages()]).toEqual([3, 4])
  // Page 3 lost the byte in line 0 and gained one in line 1; page 4 changed in its last line.
  expect([...epoch!.changedMaps]).toEqual([0b11, 0, 0, 0x8000_0000])
  expect([...epoch!.changedBytes]).toEqual([2, 1])
  using memory = Region.anonymous(pages * pageBytes)
  for (const delta of [...trace.base(), ...epoch!.content!]) applySync(memory, delta)
  expect(memory.read(290 * pageBytes + 5, 1)[0]).toBe(9)
  expect([...memory.read(3 * pageBytes, 65)].filter((byte) => byte !== 0)).toEqual([7])
})

test('full images with holes: holes are zero', async () => {
  const paths = [sparse('a', [[290, 5, 9]]), sparse('b', [[3, 64, 7]])]
  await expect(record(paths)).rejects.toThrow(/b has holes: say --holes unchanged .* or --holes zero/)
  expect(await record(paths, 'zero')).toMatchObject({ epochs: 1, dirtyPages: 2, changedLines: 2 })
})

test('what is no series is refused, and no trace is left', async () => {
  const a = sparse('a', [[0, 0, 1]])
  writeFileSync(file('cut'), new Uint8Array(100))
  await expect(record([a])).rejects.toThrow(/two images at least/)
  await expect(record([a, sparse('small', [[0, 0, 1]], 10)])).rejects.toThrow(
    /images of one series have one size/,
  )
  await expect(record([a, file('cut')])).rejects.toThrow(/100 bytes/)
  await expect(record([a, file('none')])).rejects.toThrow(/there is no file/)
  expect(() => readTrace(file('trace'))).toThrow(/there is no file/)
})

const filled = (value: number) => new Uint8Array(pageBytes).fill(value)

/** The memory at the end of a recorded series. */
function replayed(): { memory: Region; areas: ReturnType<ReturnType<typeof readTrace>['areas']> } {
  const trace = readTrace(file('trace'))
  const areas = trace.areas()
  const memory = Region.anonymous(areas.reduce((sum, { pageCount }) => sum + pageCount, 0) * pageBytes)
  for (const delta of trace.base()) applySync(memory, delta)
  for (const { content } of trace.epochs()) for (const delta of content!) applySync(memory, delta)
  return { memory, areas }
}

test('cores that map more and less from one to the next', async () => {
  const core = (name: string, parts: { virtual: number; data: Uint8Array; memoryBytes?: number }[]) => {
    writeFileSync(file(name), elfCore(parts))
    return file(name)
  }
  const paths = [
    core('a', [
      { virtual: 0x10000, data: filled(1) },
      { virtual: 0x40000, data: filled(2), memoryBytes: 4 * pageBytes },
    ]),
    core('b', [
      // Reaches from what a has on to what only c has.
      { virtual: 0x10000, data: Buffer.concat([filled(1), filled(3)]) },
      { virtual: 0x41000, data: filled(4) },
    ]),
    core('c', [{ virtual: 0x11000, data: Buffer.concat([filled(3), filled(5)]) }]),
  ]
  const summary = await record(paths)
  // b: its second page, the first of a's second area gone, the next one new. c: 0x10000 gone, 0x12000 new, 0x41000 gone.
  expect(summary).toMatchObject({ epochs: 2, dirtyPages: 6 })
  const { memory, areas } = replayed()
  expect(areas).toMatchObject([
    { firstPage: 0, pageCount: 3, address: 0x10000 },
    { firstPage: 3, pageCount: 4, address: 0x40000 },
  ])
  const firstBytes = Array.from({ length: 7 }, (_, page) => memory.read(page * pageBytes, 1)[0])
  expect(firstBytes).toEqual([0, 3, 5, 0, 0, 0, 0])
  memory.close()
})

test('the last page of a segment that ends within it counts as any other', async () => {
  const core = (name: string, bytes: number, last: number) => {
    const data = new Uint8Array(bytes).fill(1)
    data[bytes - 1] = last
    writeFileSync(
      file(name),
      elfCore([
        { virtual: 0x10000, data },
        { virtual: 0x80000, data: filled(3) },
      ]),
    )
    return file(name)
  }
  const end = 2 * pageBytes + 1000
  // Its last byte changes; then it goes on in the same page, and the byte is as it was; then it ends before, and that is zero.
  const paths = [core('a', end, 1), core('b', end, 2), core('c', end + 64, 1), core('d', end, 1)]
  expect(await record(paths)).toMatchObject({ epochs: 3, dirtyPages: 3, changedLines: 1 + 2 + 2 })
  const epochs = [...readTrace(file('trace')).epochs()]
  expect(epochs.map(({ dirty }) => [...dirty.pages()])).toEqual([[2], [2], [2]])
  const { memory } = replayed()
  expect([999, 1000].map((at) => memory.read(2 * pageBytes + at, 1)[0])).toEqual([1, 0])
  memory.close()
})

test('what a core leaves out is as it was when told, and a hole within what it holds is zero', async () => {
  writeFileSync(
    file('a'),
    elfCore([
      { virtual: 0x10000, data: Buffer.concat([filled(1), filled(2)]) },
      { virtual: 0x80000, data: filled(3) },
    ]),
  )
  // 64 pages of which the file has a hole for all but the last.
  const head = elfCore([
    { virtual: 0x10000, data: new Uint8Array(0), fileBytes: 64 * pageBytes, memoryBytes: 64 * pageBytes },
  ])
  const fd = openSync(file('b'), 'w')
  writeSync(fd, head)
  writeSync(fd, filled(9), 0, pageBytes, head.length + 63 * pageBytes)
  closeSync(fd)
  expect(await record([file('a'), file('b')], 'unchanged')).toMatchObject({ dirtyPages: 3 })
  const { memory } = replayed()
  const at = (address: number) => memory.read(address - 0x10000, 1)[0]
  expect([0x10000, 0x11000, 0x4f000].map(at)).toEqual([0, 0, 9])
  // Left out: as it was.
  expect(memory.read(64 * pageBytes, 1)[0]).toBe(3)
  memory.close()
})

/** What this process has read from files since it began, in bytes and in calls (proc(5), io). */
function readSoFar(): { bytes: number; calls: number } {
  const io = readFileSync('/proc/self/io', 'latin1')
  const field = (name: string) => Number(new RegExp(`${name}: (\\d+)`).exec(io)![1])
  return { bytes: field('rchar'), calls: field('syscr') }
}

const reservation = (name: string, gib: number, value: number) => {
  writeFileSync(
    file(name),
    elfCore([
      { virtual: 0x10000, data: Buffer.concat([filled(value), filled(2)]), memoryBytes: (gib / 2) * 2 ** 30 },
      { virtual: 0x7000_0000_0000, data: filled(value), memoryBytes: (gib / 2) * 2 ** 30 },
    ]),
  )
  return file(name)
}

test.each([
  ['a core of 64 GiB of reservation', (name: string, value: number) => reservation(name, 64, value)],
  [
    'a sparse image of 64 GiB',
    (name: string, value: number) =>
      sparse(
        name,
        [
          [5, 0, value],
          [2 ** 23, 0, value],
        ],
        2 ** 24,
      ),
  ],
])('%s takes what is there: few bytes are read, and the trace is small', async (_, make) => {
  const paths = [make('a', 1), make('b', 7), make('c', 7)]
  const before = readSoFar()
  const summary = await record(paths, 'zero')
  const after = readSoFar()
  expect(summary).toMatchObject({ epochs: 2, dirtyPages: 2 })
  expect(after.bytes - before.bytes).toBeLessThan(4 * 2 ** 20)
  expect(statSync(file('trace')).size).toBeLessThan(64 * 1024)
  expect(readTrace(file('trace')).header.memoryBytes).toBe(64 * 2 ** 30)
  summarize(readTrace(file('trace')))
})

test('time grows with the number of segments as that number does', async () => {
  const series = (count: number) =>
    [1, 2].map((value) => {
      const name = `${count}-${value}`
      writeFileSync(
        file(name),
        elfCore(
          Array.from({ length: count }, (_, i) => ({
            virtual: (2 * i + 1) * pageBytes,
            data: filled(value),
          })),
        ),
      )
      return file(name)
    })
  const cost = async (paths: string[]) => {
    const [cpu, reads] = [process.cpuUsage(), readSoFar()]
    await record(paths)
    const { user, system } = process.cpuUsage(cpu)
    return { us: user + system, calls: readSoFar().calls - reads.calls }
  }
  const [few, many] = [series(4_000), series(16_000)]
  await cost(few)
  const ratios: number[] = []
  // What else the machine does costs time, too, but not each time.
  do {
    const [small, large] = [await cost(few), await cost(many)]
    expect(large.calls).toBeLessThan(3 * 16_000)
    ratios.push(large.us / small.us)
  } while (Math.min(...ratios) > 9 && ratios.length < 4)
  // Sixteenfold when each segment looks at all the others.
  expect(Math.min(...ratios)).toBeLessThan(9)
})
