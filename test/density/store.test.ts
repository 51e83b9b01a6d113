/** The store through its Node face: any order of operations equals plain arrays; misuse and damage are errors. */
import { closeSync, ftruncateSync, openSync, readdirSync, readSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, expect, test } from 'vitest'
import { makeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import { residentPages, Store } from '../../src/density/store.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'

const pages = 24
const pageBytes = 4096
const directories: string[] = []

afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true })
})

function workspace(): string {
  const directory = makeOwnedDirectory('subpage-test-store-', '/dev/shm')
  directories.push(directory)
  return directory
}

/** Guests whose memory is a file, beside what they ought to hold. */
class Fleet {
  readonly directory = workspace()
  readonly models = [0, 1, 2].map(() => new Uint8Array(pages * pageBytes))
  readonly fds = this.models.map((_, guest) => this.file(guest))
  store = this.open()
  numbers = this.attach()

  file(guest: number): number {
    const fd = openSync(this.ram(guest), 'w+', 0o600)
    ftruncateSync(fd, pages * pageBytes)
    return fd
  }

  ram(guest: number): string {
    return join(this.directory, `ram-${guest}`)
  }

  open(): Store {
    const [directory, swap] = [join(this.directory, 'store'), join(this.directory, 'swap')]
    return Store.open({ directory, swap, pagesMax: 1024, indexPages: 64 })
  }

  attach(): number[] {
    return this.models.map((_, guest) => this.store.attach(`g${guest}`, this.ram(guest), guest === 2 ? 7 : 1))
  }

  restart(): void {
    this.store.close()
    this.store = this.open()
    this.numbers = this.attach()
  }

  expectPage(guest: number, page: number): void {
    const wanted = this.models[guest]!.subarray(page * pageBytes, (page + 1) * pageBytes)
    expect(Buffer.compare(this.store.read(this.numbers[guest]!, page), wanted)).toBe(0)
  }

  end(): void {
    this.store.close()
    for (const fd of this.fds) closeSync(fd)
  }
}

/** Few kinds of content, so that pages are often identical or similar. */
const content = fc
  .tuple(
    fc.constantFrom('fill', 'noise', 'text'),
    fc.integer({ min: 0, max: 3 }),
    fc.integer({ min: 0, max: 2 }),
  )
  .map(([kind, seed, changes]) => {
    const page = new Uint8Array(pageBytes)
    if (kind === 'fill') page.fill(seed)
    else {
      let state = seed + 1
      for (let i = 0; i < pageBytes; i++) {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
        page[i] = kind === 'noise' ? state >>> 24 : 97 + ((state >>> 28) & 7)
      }
      for (let i = 0; i < changes; i++) page[1000 * i + seed] = 0xff
    }
    return page
  })

const guest = fc.integer({ min: 0, max: 2 })
const run = fc
  .tuple(fc.integer({ min: 0, max: pages - 1 }), fc.integer({ min: 1, max: pages }))
  .map(([first, count]) => PageRanges.of([[first, Math.min(count, pages - first)]]))

type Step = (fleet: Fleet) => Promise<unknown> | unknown

const steps: fc.Arbitrary<Step>[] = [
  // The guest writes: its page is back before it does.
  fc.tuple(guest, run, content, fc.boolean()).map(([who, where, page, whole]) => async (fleet: Fleet) => {
    const [first] = where.pages()
    const one = PageRanges.of([[first!, 1]])
    if (whole) fleet.store.drop(fleet.numbers[who]!, one)
    else await fleet.store.fetch(fleet.numbers[who]!, one)
    const bytes = whole ? page : page.subarray(0, 8)
    fleet.models[who]!.set(bytes, first! * pageBytes)
    if (whole) writeSync(fleet.fds[who]!, bytes, 0, bytes.length, first! * pageBytes)
    else writeSync(fleet.fds[who]!, bytes, 0, 8, first! * pageBytes)
  }),
  fc
    .tuple(guest, run, fc.boolean(), fc.boolean())
    .map(([who, where, patch, onlySmaller]) => async (fleet: Fleet) => {
      const tally = await fleet.store.evict(fleet.numbers[who]!, where, { patch, onlySmaller })
      const { filled, shared, patched, whole, holes, failed, left } = tally
      expect(filled + shared + patched + whole + holes + left).toBe(where.pageCount)
      expect(failed).toBe(0)
      if (onlySmaller) expect(whole).toBe(0)
    }),
  fc.tuple(guest, run).map(([who, where]) => async (fleet: Fleet) => {
    const there = fleet.store.stored(fleet.numbers[who]!, pages).intersect(where).pageCount
    expect(await fleet.store.fetch(fleet.numbers[who]!, where)).toBe(there)
  }),
  fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 3 })).map(
    ([pack, swap]) =>
      (fleet: Fleet) =>
        fleet.store.sweep(1000, pack, swap),
  ),
  fc.constant((fleet: Fleet) => fleet.restart()),
  guest.map((who) => (fleet: Fleet) => {
    const split = fleet.store.split(fleet.numbers[who]!)
    const stored = fleet.store.stored(fleet.numbers[who]!, pages).pageCount
    const { filled, shared, patched, packed, swapped, whole } = split
    expect(filled + shared + patched + packed + swapped + whole).toBe(stored)
    expect(split.resident + split.holes + stored).toBe(pages)
  }),
]

test('any order of writes, evictions, reads, sweeps and restarts equals plain arrays', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.oneof(...steps), { minLength: 1, maxLength: 40 }), async (list) => {
      const fleet = new Fleet()
      try {
        for (const step of list) await step(fleet)
        for (const who of [0, 1, 2]) for (let page = 0; page < pages; page++) fleet.expectPage(who, page)
        // And in the end everything comes back into the files, and nothing is left.
        for (const [who, number] of fleet.numbers.entries()) {
          await fleet.store.fetch(number, PageRanges.all(pages))
          const file = new Uint8Array(pages * pageBytes)
          readSync(fleet.fds[who]!, file, 0, file.length, 0)
          expect(Buffer.compare(file, fleet.models[who]!)).toBe(0)
        }
        expect(fleet.store.totals).toMatchObject({ objects: 0, poolBytes: 0, swapBytes: 0 })
      } finally {
        fleet.end()
      }
    }),
    { numRuns: 60 },
  )
})

test('misuse is a TypeError, and what cannot be opened an error that says why', async () => {
  const fleet = new Fleet()
  const { store } = fleet
  expect(() => store.attach('g0', fleet.ram(0), 1)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  await expect(store.evict(9, PageRanges.all(1), { patch: true })).rejects.toThrow(TypeError)
  await expect(store.fetch(fleet.numbers[0]!, PageRanges.all(pages + 1))).rejects.toThrow(TypeError)
  expect(() => store.read(fleet.numbers[0]!, pages)).toThrow(TypeError)
  const under = store.sweep(1000, 1, 1)
  store.close()
  store.close()
  await under
  expect(() => store.totals).toThrow(TypeError)
  expect(() => Store.open({ directory: join(fleet.ram(0), 'x'), pagesMax: 10, indexPages: 10 })).toThrow(
    expect.objectContaining({ code: 'BAD_ARGUMENT' }),
  )
  fleet.end()
  expect(readdirSync(fleet.directory)).toContain('store')
})

test('what a RAM file has reserved and nobody has written is given back; what holds something stays', async () => {
  const ramPath = join(workspace(), 'ram')
  const ram = await Region.create(ramPath, pages * pageBytes)
  ram.write(5 * pageBytes, Uint8Array.of(7))
  const fleet = new Fleet()
  const guest = fleet.store.attach('reserved', ramPath, 9)
  expect(fleet.store.split(guest)).toMatchObject({ resident: pages, holes: 0 })
  expect([...residentPages(ramPath, pages)]).toEqual([{ first: 5, count: 1 }])
  await fleet.store.evict(guest, PageRanges.all(pages), { patch: true, trim: true })
  expect(fleet.store.split(guest)).toMatchObject({ resident: 1, holes: pages - 1, whole: 0 })
  expect(ram.read(5 * pageBytes, 1)).toEqual(Uint8Array.of(7))
  ram.close()
  fleet.end()
})

test('a wrong byte in the store is an error, never a page', async () => {
  const fleet = new Fleet()
  const noise = Uint8Array.from({ length: pageBytes }, (_, i) => (i * 2_654_435_761) >>> 24)
  writeSync(fleet.fds[0]!, noise, 0, pageBytes, 0)
  await fleet.store.evict(fleet.numbers[0]!, PageRanges.all(1), { patch: false })
  const pool = openSync(join(fleet.directory, 'store/pool'), 'r+')
  writeSync(pool, Uint8Array.of(1 ^ noise[100]!), 0, 1, 100)
  closeSync(pool)
  const damaged = expect.objectContaining({ code: 'STORE_DAMAGED' })
  expect(() => fleet.store.read(fleet.numbers[0]!, 0)).toThrow(damaged)
  await expect(fleet.store.fetch(fleet.numbers[0]!, PageRanges.all(1))).rejects.toThrow(damaged)
  fleet.end()
})
