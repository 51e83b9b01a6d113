/**
 * A recording counts the pages that were written, no others and all of them: what is only reserved, or only read, is not; what
 * was given back is, once, since it has changed. The oracle's writes are known; what the holder finds is compared with them
 * exactly, epoch by epoch.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pageBytes } from 'subpage/memory/page'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { seededRandom } from '../../../test/support/random.ts'
import { Epochs, Oracle, range, seesFiles } from './oracle.ts'
import { buildVictim } from './victim.ts'
import { zeroPage } from './zero-page.ts'

const shared = ['memfd', 'anon', 'sysv'] as const
/** More than the 64 MiB that get numbers together: the first page and the last are of different blocks. */
const pages = 20_000
const reserved = 2 ** 34 / pageBytes

let folder: string
let program: string
let file: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-touched-'))
  program = buildVictim(folder, 'oracle')
  file = join(folder, 'file')
  writeFileSync(file, Buffer.alloc(pages * pageBytes, 'a file'))
})
afterAll(() => rmSync(folder, { recursive: true }))

const undo: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

async function start(): Promise<Oracle> {
  const oracle = await Oracle.start(program, file)
  undo.push(() => oracle.end())
  return oracle
}

async function watch(oracle: Oracle, choice?: 'userfault' | 'compare'): Promise<Epochs> {
  const epochs = await Epochs.of(oracle.pid, choice)
  undo.push(() => epochs.close())
  return epochs
}

test.each(['private', 'memfd'] as const)(
  '16 GiB reserved (%s), two pages touched: two pages, and small page tables',
  async (kind) => {
    const oracle = await start()
    const at = await oracle.map(0, kind, reserved)
    const never = await oracle.map(1, kind, reserved)
    await oracle.run('write', 0, 7, 1)
    await oracle.run('write', 0, reserved / 2, 1)
    const [tables, resident] = [oracle.status('VmPTE'), oracle.status('VmRSS')]
    const epochs = await watch(oracle)
    expect(epochs.written(at, reserved)).toEqual([7, reserved / 2])
    expect(epochs.written(never, reserved)).toEqual([])
    await oracle.run('write', 0, reserved - 1, 1)
    await oracle.run('write', 1, 1, 1)
    await epochs.next()
    expect(epochs.written(at, reserved)).toEqual([reserved - 1])
    expect(epochs.written(never, reserved)).toEqual([1])
    // 8 bytes a page would be 32 MiB for each mapping.
    expect(oracle.status('VmPTE') - tables).toBeLessThan(1024)
    expect(oracle.status('VmRSS') - resident).toBeLessThan(1024)
  },
)

test.each(['private', 'file', ...shared] as const)(
  '%s: reads of untouched pages are no writes',
  async (kind) => {
    const oracle = await start()
    const at = await oracle.map(0, kind, pages)
    const late = await oracle.map(1, kind, pages)
    await oracle.run('write', 0, 0, 2)
    const epochs = await watch(oracle)
    expect(epochs.written(at, pages)).toEqual([0, 1])
    await oracle.run('read', 0, 0, 30)
    await oracle.run('read', 0, pages - 20, 20)
    await oracle.run('read', 1, 100, 20)
    await epochs.next()
    expect(epochs.written(at, pages)).toEqual([])
    expect(epochs.written(late, pages)).toEqual([])
    await oracle.run('write', 0, 20, 20)
    await oracle.run('write', 1, 110, 1)
    await epochs.next()
    expect(epochs.written(at, pages)).toEqual(range(20, 20))
    expect(epochs.written(late, pages)).toEqual([110])
    await epochs.next()
    expect(epochs.written(at, pages)).toEqual([])
  },
)

test.each(['private', 'file'] as const)('%s: what is given back counts once', async (kind) => {
  const oracle = await start()
  const at = await oracle.map(0, kind, pages)
  await oracle.run('write', 0, 0, 40)
  const epochs = await watch(oracle)
  await oracle.run('dontneed', 0, 0, 5)
  await oracle.run('dontneed', 0, 10, 5)
  await oracle.run('read', 0, 10, 5)
  await oracle.run('dontneed', 0, 20, 5)
  await oracle.run('write', 0, 20, 5)
  await oracle.run('dontneed', 0, 1000, 5)
  await epochs.next()
  expect(epochs.written(at, pages)).toEqual([...range(0, 5), ...range(10, 5), ...range(20, 5)])
  expect(epochs.copied(at, pages)).toBe(true)
  await epochs.next()
  await oracle.run('read', 0, 0, 40)
  await oracle.run('dontneed', 0, 0, 15)
  await epochs.next()
  // 5 to 9 are still held until now; the others were given back before, and where reading has filled them again may be held.
  const heldAgain = kind === 'private' && !zeroPage
  expect(epochs.written(at, pages)).toEqual(range(5, heldAgain ? 10 : 5))
  await oracle.run('write', 0, 0, 2)
  await epochs.next()
  expect(epochs.written(at, pages)).toEqual([0, 1])
})

test.each(shared)(
  '%s: what is only unmapped here is still there, and what was written before is not lost',
  async (kind) => {
    const oracle = await start()
    const at = await oracle.map(0, kind, pages)
    await oracle.run('write', 0, 0, 5)
    const epochs = await watch(oracle)
    await oracle.run('dontneed', 0, 0, 5)
    await epochs.next()
    expect(epochs.written(at, pages)).toEqual([])
    await oracle.run('read', 0, 0, 5)
    await epochs.next()
    expect(epochs.written(at, pages)).toEqual([])
    await oracle.run('write', 0, 3, 1)
    await oracle.run('dontneed', 0, 3, 1)
    await oracle.run('write', 0, pages - 1, 1)
    await oracle.run('dontneed', 0, pages - 1, 1)
    await epochs.next()
    expect(epochs.written(at, pages)).toEqual(seesFiles() ? [3, pages - 1] : [3])
    expect(epochs.copied(at, pages)).toBe(true)
  },
)

test('shared memory that another mapping filled is there from the start', async () => {
  const oracle = await start()
  const at = await oracle.map(0, 'memfd', pages)
  await oracle.run('write', 0, 3, 4)
  await oracle.run('fixed', 0, 0, pages) // nothing of it is in the page tables now
  const epochs = await watch(oracle)
  expect(epochs.written(at, pages)).toEqual(seesFiles() ? range(3, 4) : [])
  expect(epochs.copied(at, pages)).toBe(true)
})

test.each(['private', 'file', 'memfd'] as const)(
  '%s: something else is mapped over known pages',
  async (kind) => {
    const oracle = await start()
    const at = await oracle.map(0, kind, pages)
    await oracle.run('write', 0, 0, 40)
    const epochs = await watch(oracle)
    await oracle.run('fixed', 0, 0, 10)
    await oracle.run('unmap', 0, 20, 5)
    await epochs.next()
    expect(epochs.written(at, pages)).toEqual(range(0, 10))
    expect(epochs.copied(at, 10)).toBe(true)
    await oracle.run('fixed', 0, 20, 10)
    await oracle.run('write', 0, 29, 2)
    await oracle.run('read', 0, 100, 2)
    await epochs.next()
    expect(epochs.written(at, pages)).toEqual(range(20, 11))
    expect(epochs.copied(at, pages)).toBe(true)
    await epochs.next()
    expect(epochs.written(at, pages)).toEqual([])
  },
)

test('memory that grows: brk and mremap', async () => {
  const oracle = await start()
  const epochs = await watch(oracle)
  for (let slot = 0; slot < 4; slot++) {
    const at = await oracle.map(slot, 'heap', 1000)
    await oracle.run('write', slot, 500, 3)
    await oracle.run('read', slot, 600, 3)
    await epochs.next()
    expect(epochs.written(at, 1000)).toEqual([500, 501, 502])
  }
  const small = await oracle.map(4, 'private', 100)
  await oracle.run('write', 4, 0, 10)
  await epochs.next()
  expect(epochs.written(small, 100)).toEqual(range(0, 10))
  const grown = await oracle.run('grow', 4, 0, reserved)
  await oracle.run('write', 4, 50_000, 2)
  await epochs.next()
  const moved = grown === small ? [] : range(0, 10)
  expect(epochs.written(grown, reserved)).toEqual([...moved, 50_000, 50_001])
})

test.each([0, 4, 9])(
  'page %d of a new mapping is out of bounds for an epoch: it stays one, for mremap',
  async (guard) => {
    const oracle = await start()
    const epochs = await watch(oracle)
    const [at, untouched] = [await oracle.map(0, 'private', 10), await oracle.map(1, 'private', 10)]
    const others = range(0, 10).filter((page) => page !== guard)
    await oracle.run('write', 0, 0, 10)
    for (const page of others) await oracle.run('write', 1, page, 1)
    for (const slot of [0, 1]) await oracle.run('forbid', slot, guard, 1)
    await epochs.next()
    expect(epochs.written(at, 10)).toEqual(others)
    expect(epochs.written(untouched, 10)).toEqual(others)
    for (const slot of [0, 1]) await oracle.run('allow', slot, guard, 1)
    await epochs.next()
    // What it held all the time comes into sight.
    expect(epochs.written(at, 10)).toEqual([guard])
    expect(epochs.written(untouched, 10)).toEqual([])
    const another = await oracle.map(2, 'private', 10)
    await oracle.run('write', 2, 0, 10)
    await oracle.run('forbid', 2, guard, 1)
    await epochs.next()
    expect(epochs.written(another, 10)).toEqual(others)
    await oracle.run('allow', 2, guard, 1)
    expect(await oracle.run('span', 2, 0, 10)).toBe(0)
  },
)

test('realloc of small blocks in the heap and of large ones in mappings of their own, epoch after epoch', async () => {
  const oracle = await start()
  const epochs = await watch(oracle)
  for (let round = 1; round <= 40; round++) {
    for (const [slot, pages] of [round, 100 * round].entries())
      expect(await oracle.run('realloc', slot, 0, pages)).toBe(0)
    await epochs.next()
  }
})

test('ten stacks, a line touched in the middle of each', async () => {
  const oracle = await start()
  const epochs = await watch(oracle)
  const each = 2048
  const at = await oracle.run('stacks', 0, each, 10)
  await epochs.next()
  const found = epochs.written(at, 10 * each)
  for (let i = 0; i < 10; i++) expect(found).toContain(i * each + each / 2)
  // The others are the ends of the stacks, where the C library and the kernel have put what a thread needs.
  expect(found).toHaveLength(await oracle.run('resident', 0, 0, 10 * each))
  expect(found.length).toBeLessThan(80)
})

test('large pages: the pages that were touched, not what the kernel filled for them', async () => {
  const oracle = await start()
  const at = await oracle.map(0, 'huge', 4096)
  await oracle.run('write', 0, 3, 1)
  await oracle.run('read', 0, 600, 1)
  const epochs = await watch(oracle)
  expect(epochs.written(at, 4096)).toEqual([3])
  await oracle.run('write', 0, 4, 1)
  await oracle.run('zeros', 0, 5, 1)
  await oracle.run('read', 0, 1100, 1)
  await oracle.run('write', 0, 2000, 1)
  await epochs.next()
  expect(epochs.written(at, 4096)).toEqual(zeroPage ? [4, 5, 2000] : [4, 2000])
  await oracle.run('dontneed', 0, 0, 512)
  await oracle.run('read', 0, 0, 512)
  await epochs.next()
  expect(epochs.written(at, 4096)).toEqual(zeroPage ? [3, 4, 5] : [3, 4])
  expect(epochs.copied(at, 4096)).toBe(true)
})

test('guard pages hold nothing', async () => {
  const oracle = await start()
  const at = await oracle.map(0, 'private', 100)
  await oracle.run('write', 0, 0, 10)
  await oracle.run('guard', 0, 50, 10)
  const epochs = await watch(oracle)
  expect(epochs.written(at, 100)).toEqual(range(0, 10))
  const installed = await oracle.run('guard', 0, 8, 4)
  await epochs.next()
  expect(epochs.written(at, 100)).toEqual(installed === 1 ? [8, 9] : [])
  await epochs.next()
  expect(epochs.written(at, 100)).toEqual([])
})

test('compared pages: what is given back is seen, what is reserved is not', async () => {
  const oracle = await start()
  const at = await oracle.map(0, 'private', pages)
  await oracle.run('write', 0, 0, 10)
  const epochs = await watch(oracle, 'compare')
  expect(epochs.written(at, pages)).toEqual(range(0, 10))
  await oracle.run('dontneed', 0, 0, 5)
  await epochs.next()
  expect(epochs.written(at, pages)).toEqual(range(0, 5))
  await epochs.next()
  expect(epochs.written(at, pages)).toEqual([])
  await oracle.run('write', 0, 6, 1)
  await epochs.next()
  expect(epochs.written(at, pages)).toEqual([6])
  await oracle.run('dontneed', 0, 5, 5)
  await epochs.next()
  expect(epochs.written(at, pages)).toEqual(range(5, 5))
  expect(epochs.copied(at, pages)).toBe(true)
})

/** Pages by what they are at the end of an epoch, and were at its start. */
class Model {
  readonly #isShared: boolean
  readonly #holds = new Set<number>()
  readonly #nonzero = new Set<number>()
  readonly #touched = new Set<number>()
  readonly #mappedAnew = new Set<number>()
  readonly #filledByReading: boolean
  #known = new Set<number>()

  /** @param filledByReading on a kernel without a zero page: zeros that are there may have been read or written */
  constructor(isShared: boolean, filledByReading: boolean) {
    this.#isShared = isShared
    this.#filledByReading = filledByReading
  }

  note(doing: Step, page: number): void {
    if (doing === 'write' || doing === 'zeros') {
      this.#holds.add(page)
      this.#touched.add(page)
      if (doing === 'write') this.#nonzero.add(page)
      else this.#nonzero.delete(page)
    } else if (doing === 'dontneed' || doing === 'fixed') {
      if (!this.#isShared) for (const pages of [this.#holds, this.#touched, this.#nonzero]) pages.delete(page)
      if (doing === 'fixed') this.#mappedAnew.add(page)
    } else if (doing === 'read' && this.#filledByReading && !this.#holds.has(page)) {
      this.#holds.add(page)
      this.#touched.add(page)
    }
  }

  endEpoch(): number[] {
    const counts = (page: number) =>
      !this.#filledByReading || this.#nonzero.has(page) || this.#known.has(page)
    const found = new Set([...this.#touched].filter(counts))
    for (const page of this.#known) if (!this.#holds.has(page)) found.add(page)
    if (this.#isShared)
      for (const page of this.#mappedAnew) {
        // Zeros in a mapping that is new may have been read or written.
        if (this.#known.has(page) || this.#nonzero.has(page)) found.add(page)
        else found.delete(page)
      }
    this.#known = new Set([...this.#known, ...found].filter((page) => this.#holds.has(page)))
    this.#touched.clear()
    this.#mappedAnew.clear()
    return [...found].sort((a, b) => a - b)
  }
}

const allSteps = ['write', 'write', 'zeros', 'read', 'dontneed', 'dontneed', 'fixed', 'pageout'] as const
type Step = (typeof allSteps)[number]

test.each(['private', 'file', 'memfd'] as const)(
  '%s: whatever is done, exactly what was written',
  async (kind) => {
    const random = seededRandom()
    const oracle = await start()
    const at = await oracle.map(0, kind, pages)
    const model = new Model(kind === 'memfd', kind === 'private' && !zeroPage)
    const done: string[] = []
    const step = async (doing: Step, first: number, count: number) => {
      await oracle.run(doing, 0, first, count)
      for (const page of range(first, count)) model.note(doing, page)
      done.push(`${doing} ${first} ${count}`)
    }
    await step('write', 0, 1)
    await step('write', pages - 1, 1)
    const epochs = await watch(oracle)
    for (let epoch = 0; epoch < 100; epoch++) {
      const so = `seed ${random.seed}, after ${done.join('; ')}`
      expect(epochs.written(at, pages), so).toEqual(model.endEpoch())
      expect(epochs.copied(at, pages), so).toBe(true)
      for (let left = random.integer(0, 12); left > 0; left--)
        await step(
          allSteps[random.integer(0, allSteps.length - 1)]!,
          random.integer(0, 199),
          random.integer(1, 20),
        )
      done.push('epoch')
      await epochs.next()
    }
  },
)

test('memory that is shared with a child since a fork stays shared', async () => {
  const oracle = await start()
  const at = await oracle.map(0, 'private', 2000)
  await oracle.run('write', 0, 0, 2000)
  const child = await oracle.run('fork', 0, 0, 0)
  const before = [sharedKiB(oracle.pid, at), sharedKiB(child, at)]
  expect(before).toEqual([8000, 8000])
  const epochs = await watch(oracle)
  expect(epochs.written(at, 2000)).toEqual(range(0, 2000))
  expect([sharedKiB(oracle.pid, at), sharedKiB(child, at)]).toEqual(before)
  await oracle.run('write', 0, 0, 100)
  await epochs.next()
  expect(epochs.written(at, 2000)).toEqual(range(0, 100))
  expect(sharedKiB(oracle.pid, at)).toBe(7600)
})

test('memory of 64 MiB is there once, too, when a child is made while it is recorded', async () => {
  const oracle = await start()
  const at = await oracle.map(0, 'private', 16_384)
  await oracle.run('write', 0, 0, 16_384)
  const epochs = await watch(oracle)
  const child = await oracle.run('fork', 0, 0, 0)
  for (let epoch = 0; epoch < 3; epoch++) {
    await oracle.run('read', 0, 0, 16_384)
    await epochs.next()
    expect(epochs.written(at, 16_384)).toEqual([])
  }
  expect([sharedKiB(oracle.pid, at), sharedKiB(child, at)]).toEqual([65_536, 65_536])
})

/** How much of the mapping at an address more than one process has. */
function sharedKiB(pid: number, address: number): number {
  let inside = false
  let sum = 0
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'latin1').split('\n')) {
    const mapping = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line)
    if (mapping)
      inside = Number.parseInt(mapping[1]!, 16) <= address && address < Number.parseInt(mapping[2]!, 16)
    const size = /^Shared_(?:Clean|Dirty):\s+(\d+)/.exec(line)
    if (inside && size) sum += Number(size[1])
  }
  return sum
}
