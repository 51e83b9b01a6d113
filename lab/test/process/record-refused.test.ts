/**
 * Memory that the kernel does not track, or that somebody else tracks: it is compared, the rest is tracked as ever, a note says
 * so, and the process goes on as if nobody watched.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { pageBytes } from 'subpage/memory/page'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { Epochs, type Kind, Oracle, range } from './oracle.ts'
import { buildVictim } from './victim.ts'

let folder: string
let program: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-refused-'))
  program = buildVictim(folder, 'oracle')
})
afterAll(() => rmSync(folder, { recursive: true }))

const undo: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

async function start(): Promise<Oracle> {
  const oracle = await Oracle.start(program, program)
  undo.push(() => oracle.end())
  return oracle
}

async function watch(oracle: Oracle): Promise<Epochs> {
  const epochs = await Epochs.of(oracle.pid)
  undo.push(() => epochs.close())
  return epochs
}

/** Large pages for the test, as far as the host gives them to us. */
function reserveLargePages(count: number): boolean {
  const setting = '/proc/sys/vm/nr_hugepages'
  const read = () => Number(readFileSync(setting, 'utf8'))
  const before = read()
  try {
    writeFileSync(setting, String(before + count))
  } catch {
    return false
  }
  undo.push(() => writeFileSync(setting, String(before)))
  return read() === before + count
}

const large = 2 * 512

/** Whatever becomes of one mapping, another in the same process is tracked to the page, silent writes too. */
async function followed(kind: Kind, pages: number, note: RegExp | undefined): Promise<void> {
  const oracle = await start()
  const tracked = await oracle.map(1, 'private', 100)
  const at = await oracle.map(0, kind, pages)
  if (at === 0) return
  await oracle.run('write', 0, 3, 4)
  await oracle.run('write', 1, 0, 9)
  const epochs = await watch(oracle)
  expect(epochs.written(at, pages)).toEqual(range(3, 4))
  expect(epochs.written(tracked, 100)).toEqual(range(0, 9))
  if (note) expect(epochs.notes).toContainEqual(expect.stringMatching(note))
  else expect(epochs.notes).toEqual([])
  await oracle.run('write', 0, 5, 1)
  await oracle.run('write', 0, 90, 2)
  await oracle.run('zeros', 1, 2, 1)
  await epochs.next()
  expect(epochs.written(at, pages)).toEqual([5, 90, 91])
  expect(epochs.written(tracked, 100)).toEqual([2])
  expect(epochs.copied(at, pages)).toBe(true)
  await oracle.run('zeros', 1, 2, 1)
  await epochs.next()
  expect(epochs.written(at, pages)).toEqual([])
  expect(epochs.written(tracked, 100)).toEqual([2])
  expect(epochs.notes).toHaveLength(note ? 1 : 0)
  expect(await oracle.run('resident', 0, 0, pages)).toBe(pages === large ? 512 : 6)
}

test('droppable memory is compared, and a note says so', () =>
  followed(
    'droppable',
    100,
    /^Compared, not tracked: 400 KiB \(anonymous at 0x[0-9a-f]+\), because .*droppable/,
  ))

test.each(['sealed', 'sealedfile'] as const)('%s memory is tracked as any other', (kind) =>
  followed(kind, 100, undefined),
)

test.each(['hugetlb', 'hugeshared'] as const)('%s: pages of 4 KiB, by comparison', async (kind) => {
  if (reserveLargePages(4)) await followed(kind, large, /^Compared, not tracked: 4.0 MiB .*hugetlb/)
})

test('secret memory is left out, and harmless', async () => {
  const oracle = await start()
  const tracked = await oracle.map(1, 'private', 100)
  if ((await oracle.map(0, 'secret', 100)) !== 0) await oracle.run('write', 0, 0, 9)
  const epochs = await watch(oracle)
  await oracle.run('write', 1, 4, 1)
  await epochs.next()
  expect(epochs.written(tracked, 100)).toEqual([4])
})

test.each(['private', 'memfd'] as const)(
  '%s: a process that tracks its own writes loses none, and they are recorded',
  async (kind) => {
    const oracle = await start()
    await oracle.run('uffd', 0, 0, 0)
    const before = await oracle.map(0, kind, 1000)
    await oracle.run('write', 0, 0, 1000)
    expect(await oracle.run('track', 0, 0, 1000)).toBe(0)
    const epochs = await watch(oracle)
    expect(epochs.written(before, 1000)).toEqual(range(0, 1000))
    const since = await oracle.map(1, kind, 1000)
    expect(await oracle.run('track', 1, 0, 1000)).toBe(0)
    for (let round = 0; round < 10; round++) {
      for (const slot of [0, 1]) await oracle.run('write', slot, 10 * round, 10)
      await epochs.next()
      expect(epochs.written(before, 1000)).toEqual(range(10 * round, 10))
      expect(epochs.written(since, 1000)).toEqual(range(10 * round, 10))
    }
    for (const slot of [0, 1]) expect(await oracle.run('marked', slot, 0, 1000)).toBe(100)
    expect(epochs.notes).toContainEqual(expect.stringContaining('another userfaultfd'))
    await epochs.next()
    expect(epochs.written(before, 1000)).toEqual([])
  },
)

test('a process that has a userfaultfd registers what it likes, whenever it likes', async () => {
  const oracle = await start()
  const old = await oracle.map(0, 'private', 1000)
  await oracle.run('write', 0, 0, 1000)
  const heap = await oracle.map(2, 'heap', 100)
  await oracle.run('write', 2, 0, 10)
  const epochs = await watch(oracle)
  expect(epochs.notes).toEqual([])
  await oracle.run('uffd', 0, 0, 0)
  const fresh = await oracle.map(1, 'private', 1000)
  await oracle.run('write', 1, 0, 5)
  // It is looked for now and then only.
  await expect
    .poll(async () => {
      await epochs.next()
      return epochs.notes
    })
    .toContainEqual(expect.stringContaining('a userfaultfd of its own'))
  for (const slot of [0, 1]) {
    expect(await oracle.run('track', slot, 0, 500)).toBe(0)
    await oracle.run('write', slot, 495, 10)
  }
  await oracle.run('zeros', 2, 5, 1)
  await epochs.next()
  for (const at of [old, fresh]) expect(epochs.written(at, 1000)).toEqual(range(495, 10))
  expect(epochs.written(heap, 100)).toEqual([5])
  for (const slot of [0, 1]) expect(await oracle.run('marked', slot, 0, 500)).toBe(5)
  await oracle.run('untrack', 0, 0, 500)
  await oracle.run('write', 0, 3, 1)
  await epochs.next()
  expect(epochs.written(old, 1000)).toEqual([3])
})

test.each(['missing', 'minor'] as const)(
  'faults that a process serves itself (%s) are not asked for',
  async (mode) => {
    const oracle = await start()
    await oracle.run('uffd', 0, 0, 0)
    const at = await oracle.map(0, 'memfd', 100)
    await oracle.run('write', 0, 10, 5)
    await oracle.run('fixed', 0, 0, 100) // the file has the pages, the page tables do not
    expect(await oracle.run(mode, 0, 0, 100)).toBe(0)
    const epochs = await watch(oracle)
    await epochs.next()
    await oracle.run('untrack', 0, 0, 100)
    await oracle.run('write', 0, 12, 1)
    await epochs.next()
    expect(epochs.written(at, 100)).toEqual([12])
    expect(epochs.copied(at, 100)).toBe(true)
  },
)

test('mappings that come and go', async () => {
  const oracle = await start()
  const epochs = await watch(oracle)
  for (let round = 0; round < 20; round++) {
    const kind = (['droppable', 'private', 'memfd'] as const)[round % 3]!
    const at = await oracle.map(0, kind, 50)
    await oracle.run('write', 0, round, 2)
    if (round % 4 !== 0) await epochs.next()
    // What was mapped there before has gone: that counts, too.
    if (round % 4 !== 0) {
      expect(epochs.written(at, 50)).toEqual(expect.arrayContaining([round, round + 1]))
      expect(epochs.copied(at, 50)).toBe(true)
    }
    await oracle.run('unmap', 0, 0, 50)
    if (round % 2 === 0) await epochs.next()
  }
})

test.each(['private', 'memfd', 'droppable'] as const)(
  '%s: 2,048 pages far apart in four times the memory of this host',
  async (kind) => {
    const oracle = await start()
    const stride = Math.ceil((4 * totalmem()) / pageBytes / 2048)
    const pages = 2048 * stride
    const at = await oracle.map(0, kind, pages)
    await oracle.run('sparse', 0, stride, 2048)
    const epochs = await watch(oracle)
    expect(epochs.written(at, pages)).toEqual(Array.from({ length: 2048 }, (_, i) => stride * i))
    await oracle.run('write', 0, stride, 1)
    await oracle.run('write', 0, pages - 1, 1)
    await epochs.next()
    expect(epochs.written(at, pages)).toEqual([stride, pages - 1])
  },
)
