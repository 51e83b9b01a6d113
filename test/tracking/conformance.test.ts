/**
 * What every tracker promises, held over each: a harvest names every page that was written since the last one, and those that
 * it was asked to leave unarmed. The userfault tracker names no other page; compare names all. A tracker that is handed on (src/qemu/write-feed.ts) promises
 * all that the tracker within promises.
 */
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { WriteFeed } from '../../src/qemu/write-feed.ts'
import {
  openTracker,
  probeUserfault,
  type Tracker,
  type TrackerName,
  type TrackerTarget,
} from '../../src/tracking/tracker.ts'
import { type VictimOptions, Victims } from './victim.ts'

const names: TrackerName[] = probeUserfault().available ? ['userfault', 'compare'] : ['compare']
type Open = (target: TrackerTarget, name: TrackerName) => Tracker
const ways: [how: string, open: Open][] = [
  ['as opened', openTracker],
  ['with its harvests heard', (target, name) => new WriteFeed().observe(openTracker(target, name))],
]
const kinds = names.flatMap((name) => ways.map(([how, open]) => ({ name, how, open })))
const pages = 1024

let victims: Victims
const trackers: Tracker[] = []
beforeAll(() => {
  victims = new Victims()
})
afterEach(async () => {
  for (const tracker of trackers.splice(0)) tracker.close()
  await victims.clear()
})
afterAll(() => victims.close())

describe.each(kinds)('$name, $how', ({ name, open }) => {
  /** A victim whose pages are all harvested once, so that the next harvest names what came after. */
  async function watched(options: Partial<VictimOptions> = {}) {
    const victim = await victims.start({ pages, ...options })
    const tracker = open(victim.target, name)
    trackers.push(tracker)
    expect(list(tracker.harvest())).toEqual([[0, victim.target.ramPages]])
    return { victim, tracker }
  }

  /** Exactly these pages for userfault; at least these for compare. */
  function expectHarvest(tracker: Tracker, written: PageRanges) {
    const harvest = tracker.harvest()
    expect(list(written.subtract(harvest))).toEqual([])
    if (name === 'userfault') expect(list(harvest)).toEqual(list(written))
  }

  test('says its name', async () => {
    const { tracker } = await watched()
    expect(tracker.name).toBe(name)
    expect(tracker.fallback).toBeUndefined()
  })

  test('harvests early where that costs less than a whole harvest, and only then', async () => {
    const { tracker } = await watched()
    expect(tracker.early !== undefined).toBe(name === 'userfault')
  })

  test('an early look changes nothing; an early harvest takes what it is asked for, and no more', async () => {
    const { victim, tracker } = await watched()
    await victim.run('write 10 4')
    await victim.run('write 90 1')
    if (tracker.early) {
      const { early } = tracker
      for (let look = 0; look < 2; look++) expect(list(early.peek())).toEqual(list(runs([10, 4], [90, 1])))
      expect(list(early.harvest(runs([12, 20])))).toEqual([[12, 2]])
      expect(list(early.harvest(runs([12, 20])))).toEqual([])
      await victim.run('write 13 1')
      expectHarvest(tracker, runs([10, 2], [13, 1], [90, 1]))
      expect(list(early.peek())).toEqual([])
    } else expectHarvest(tracker, runs([10, 4], [90, 1]))
  })

  test('an early harvest of many runs takes those, and leaves what lies between them', async () => {
    // In two mappings, and with more runs than one call returns.
    const { victim, tracker } = await watched({ pages: 80_000, layout: 'halves' })
    await victim.run('write 0 80000')
    const every = runs(...Array.from({ length: 20_000 }, (_, i) => [4 * i + 1, 2] as [number, number]))
    if (tracker.early) {
      const { early } = tracker
      expect(list(early.harvest(every))).toEqual(list(every))
      expect(list(early.harvest(every))).toEqual([])
      await victim.run('write 39998 4')
      expectHarvest(
        tracker,
        PageRanges.all(80_000)
          .subtract(every)
          .union(runs([39_998, 4])),
      )
    } else expectHarvest(tracker, PageRanges.all(80_000))
    expectHarvest(tracker, PageRanges.empty)
  })

  test('pages that it is asked to leave are named, written or not, and lose nothing when they are armed again', async () => {
    const { victim, tracker } = await watched({ layout: 'halves' })
    const leave = runs([10, 20], [pages / 2 - 4, 8], [pages - 1, 1])
    await victim.run('write 8 6')
    for (let round = 0; round < 3; round++) {
      const harvest = tracker.harvest(leave)
      const written = round === 1 ? runs([3, 1]) : round === 0 ? runs([8, 2]) : PageRanges.empty
      expect(list(leave.union(written).subtract(harvest))).toEqual([])
      if (name === 'userfault') expect(list(harvest)).toEqual(list(leave.union(written)))
      if (round === 0) await victim.run('write 3 1')
    }
    // Written before they were left, and while they were: whoever arms them hears of it.
    await victim.run(`write ${pages / 2} 2`)
    expectHarvest(tracker, runs([10, 4], [pages / 2, 2]))
    await victim.run('write 12 1')
    expectHarvest(tracker, runs([12, 1]))
  })

  test('a page that is left unarmed is shown by an early look as soon as it was written, and until it is armed', async () => {
    const { victim, tracker } = await watched()
    await victim.run('write 5 2')
    tracker.harvest(runs([6, 2]))
    expect(list(tracker.early?.peek() ?? runs([6, 1]))).toEqual([[6, 1]])
    expect(list(tracker.early?.harvest(runs([6, 2])) ?? runs([6, 1]))).toEqual([[6, 1]])
    await victim.run('write 7 1')
    expectHarvest(tracker, runs([7, 1]))
  })

  test('before its first harvest there is nothing to take early: that names every page', async () => {
    const victim = await victims.start({ pages })
    const tracker = open(victim.target, name)
    trackers.push(tracker)
    await victim.run('write 1 3')
    expect(list(tracker.early?.peek() ?? PageRanges.empty)).toEqual([])
    expect(list(tracker.early?.harvest(PageRanges.all(pages)) ?? PageRanges.empty)).toEqual([])
    expect(list(tracker.harvest())).toEqual([[0, pages]])
  })

  test('names nothing when nothing was written', async () => {
    const { tracker } = await watched()
    expectHarvest(tracker, PageRanges.empty)
    expectHarvest(tracker, PageRanges.empty)
  })

  test('names the first page, the last page, and runs', async () => {
    const { victim, tracker } = await watched()
    await victim.run('write 0 1')
    await victim.run(`write ${pages - 1} 1`)
    await victim.run('write 500 24')
    expectHarvest(tracker, runs([0, 1], [500, 24], [pages - 1, 1]))
    expectHarvest(tracker, PageRanges.empty)
  })

  test('names a page again when it is written again', async () => {
    const { victim, tracker } = await watched()
    for (let round = 0; round < 3; round++) {
      await victim.run('write 7 2')
      expectHarvest(tracker, runs([7, 2]))
    }
  })

  test('names all pages when all were written', async () => {
    const { victim, tracker } = await watched()
    await victim.run(`write 0 ${pages}`)
    expectHarvest(tracker, PageRanges.all(pages))
    expectHarvest(tracker, PageRanges.empty)
  })

  test('names every other page: as many runs as there can be', async () => {
    const { victim, tracker } = await watched({ pages: 80_000 })
    const every = Array.from({ length: 40_000 }, (_, i) => 2 * i)
    await victim.run(`stride 0 ${every.length}`)
    expectHarvest(tracker, runs(...every.map((page) => [page, 1] as [number, number])))
    expectHarvest(tracker, PageRanges.empty)
  })

  test('names both pages of a store range that crosses from one into the next', async () => {
    const { victim, tracker } = await watched()
    await victim.run(`fill ${100 * 4096 - 1} 2`)
    expectHarvest(tracker, runs([99, 2]))
  })

  test('does not name pages that were only read', async () => {
    const { victim, tracker } = await watched()
    await victim.run(`load 0 ${pages}`)
    expectHarvest(tracker, PageRanges.empty)
    await victim.run('write 3 1')
    expectHarvest(tracker, runs([3, 1]))
  })

  test('names pages that the kernel wrote for a system call', async () => {
    const { victim, tracker } = await watched()
    await victim.run('kernel 10 5')
    expectHarvest(tracker, runs([10, 5]))
    await victim.run('kernel 12 1')
    expectHarvest(tracker, runs([12, 1]))
  })

  test('names pages that were given back to the system: they read as zero now', async () => {
    const { victim, tracker } = await watched({ layout: 'halves' })
    await victim.run(`write 0 ${pages}`)
    tracker.harvest()
    await victim.run(`punch ${pages / 2 - 2} 4`)
    expectHarvest(tracker, runs([pages / 2 - 2, 4]))
    await victim.run(`load 0 ${pages}`)
    expectHarvest(tracker, PageRanges.empty)
    await victim.run('punch 5 1')
    await victim.run(`load 0 ${pages}`)
    await victim.run('write 8 1')
    expectHarvest(tracker, runs([5, 1], [8, 1]))
  })

  test('goes on after a fork', async () => {
    const { victim, tracker } = await watched()
    await victim.run('write 1 1')
    await victim.run('fork')
    await victim.run('write 5 1')
    expectHarvest(tracker, runs([1, 1], [5, 1]))
    await victim.run('write 1 1')
    expectHarvest(tracker, runs([1, 1]))
  })

  test('loses nothing that is written during harvests', async () => {
    const { victim, tracker } = await watched({ pages: 65_536 })
    await victim.run('sweep')
    let union = PageRanges.empty
    for (let round = 0; round < 500; round++) union = union.union(tracker.harvest())
    const swept = Number(await victim.run('stop'))
    union = union.union(tracker.harvest())
    expect(swept).toBeGreaterThan(0)
    expect(list(runs([0, swept]).subtract(union))).toEqual([])
    // A page may be named twice: marked as written by the fault, harvested, and only then stored to.
    if (name === 'userfault') expect(list(union)).toEqual([[0, swept]])
  })

  test('works on two mappings that lie in memory in the other order', async () => {
    const { victim, tracker } = await watched({ layout: 'halves' })
    await victim.run(`write ${pages / 2 - 2} 4`)
    await victim.run('write 0 1')
    await victim.run(`write ${pages - 1} 1`)
    expectHarvest(tracker, runs([0, 1], [pages / 2 - 2, 4], [pages - 1, 1]))
    expectHarvest(tracker, PageRanges.empty)
  })

  test('sees a write through either of two mappings of the same pages', async () => {
    const { victim, tracker } = await watched({ layout: 'twice' })
    await victim.run('write 4 2')
    await victim.run('write2 5 2')
    expectHarvest(tracker, runs([4, 3]))
    await victim.run('write2 0 1')
    expectHarvest(tracker, runs([0, 1]))
  })

  test('counts right beyond 4 GiB of a sparse file', async () => {
    const many = 5 * 2 ** 18 // 5 GiB
    const { victim, tracker } = await watched({ pages: many })
    await victim.run(`write ${2 ** 20 - 1} 2`)
    await victim.run(`write ${many - 1} 1`)
    expectHarvest(tracker, runs([2 ** 20 - 1, 2], [many - 1, 1]))
  })

  test('names runs as they are, wherever the threads that look at much memory part it', async () => {
    const many = 3 * 2 ** 18
    const { victim, tracker } = await watched({ pages: many })
    // Threads part memory at multiples of a power of two.
    const edges = [2 ** 14, 2 ** 15, 2 ** 18, 2 ** 19]
    for (const edge of edges) await victim.run(`write ${edge - 2} 5`)
    await victim.run(`write ${2 ** 16} ${2 ** 16}`)
    const leave = runs([2 ** 15 - 1, 2], [2 ** 17 - 3, 2])
    const written = runs(...edges.map((edge) => [edge - 2, 5] as [number, number]), [2 ** 16, 2 ** 16])
    const harvest = tracker.harvest(leave)
    if (name === 'userfault') expect(list(harvest)).toEqual(list(written))
    expectHarvest(tracker, leave)
    expectHarvest(tracker, PageRanges.empty)
  })

  test('works on a memfd', async () => {
    const { victim, tracker } = await watched({ memfd: true })
    await victim.run('write 9 1')
    expectHarvest(tracker, runs([9, 1]))
  })

  test('names every written page of memory in huge pages', async () => {
    const { victim, tracker } = await watched({ memfd: true, layout: 'huge' })
    await victim.run(`write 0 ${pages}`)
    tracker.harvest()
    await victim.run('write 600 1')
    await victim.run('write 3 2')
    // A huge page may be named whole, never less than what was written.
    expect(list(runs([3, 2], [600, 1]).subtract(tracker.harvest()))).toEqual([])
  })

  test('a tracker after another finds everything unknown, then goes on', async () => {
    const { victim, tracker } = await watched()
    await victim.run('write 2 1')
    tracker.close()
    const second = open(victim.target, name)
    trackers.push(second)
    expect(list(second.harvest())).toEqual([[0, pages]])
    await victim.run('write 6 1')
    expectHarvest(second, runs([6, 1]))
  })

  test('two at a time never take marks from each other', async () => {
    const { victim, tracker } = await watched()
    const second = () => trackers.push(openTracker(victim.target, name))
    // Comparing takes nothing, so any number may.
    if (name === 'compare') second()
    else expect(second).toThrow(expect.objectContaining({ code: 'TRACKER_UNAVAILABLE' }))
    await victim.run('write 6 1')
    expectHarvest(tracker, runs([6, 1]))
  })

  test('says GUEST_DIED once the process has ended', async () => {
    const { victim, tracker } = await watched()
    await victim.kill()
    expect(() => tracker.harvest()).toThrow(expect.objectContaining({ code: 'GUEST_DIED' }))
    expect(() => openTracker(victim.target, name)).toThrow(expect.objectContaining({ code: 'GUEST_DIED' }))
  })

  test('a closed tracker stays closed, and harvesting it is a TypeError', async () => {
    const { tracker } = await watched()
    tracker.close()
    tracker.close()
    expect(() => tracker.harvest()).toThrow(TypeError)
  })

  test('any pattern of writes is named', async () => {
    const { victim, tracker } = await watched()
    const write = fc.record({
      how: fc.constantFrom('write', 'kernel', 'load', 'punch'),
      first: fc.nat(pages - 1),
      count: fc.integer({ min: 1, max: 40 }),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(write, { maxLength: 12 }), async (writes) => {
        const clipped = writes.map((w) => ({ ...w, count: Math.min(w.count, pages - w.first) }))
        for (const { how, first, count } of clipped) await victim.run(`${how} ${first} ${count}`)
        const stored = clipped.filter(({ how }) => how !== 'load')
        expectHarvest(tracker, runs(...stored.map(({ first, count }) => [first, count] as [number, number])))
      }),
      { numRuns: 200 },
    )
  })

  test('any pattern of writes is named, whatever is left unarmed', async () => {
    const { victim, tracker } = await watched()
    const few = fc.array(fc.tuple(fc.nat(pages - 41), fc.integer({ min: 1, max: 40 })), { maxLength: 8 })
    /** Written since a harvest armed it: it is named until the next one does. */
    let marked = PageRanges.empty
    await fc.assert(
      fc.asyncProperty(few, few, async (writes, leaves) => {
        for (const [first, count] of writes) await victim.run(`write ${first} ${count}`)
        const leave = runs(...leaves)
        marked = marked.union(runs(...writes))
        const harvest = tracker.harvest(leave)
        expect(list(marked.union(leave).subtract(harvest))).toEqual([])
        if (name === 'userfault') expect(list(harvest)).toEqual(list(marked.union(leave)))
        marked = marked.intersect(leave)
      }),
      { numRuns: 200 },
    )
  })
})

const runs = (...pairs: [first: number, count: number][]) => PageRanges.of(pairs)
const list = (ranges: PageRanges) => [...ranges].map(({ first, count }) => [first, count])
