/** Every page is in one place, whatever the course: a dirty page is never forgotten, and goes whole where the shadow is not to be trusted. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BrokenInvariant } from '../../src/errors.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { PendingPages } from '../../src/replication/pending-pages.ts'

const pages = 24
const of = (...list: number[]) => PageRanges.of(list.map((page) => [page, 1]))
const listed = (ranges: PageRanges | undefined) => ranges && [...ranges.pages()]

/** As after the first commit: all pages clean. */
function clean(): PendingPages {
  const pending = new PendingPages(pages)
  pending.harvested(PageRanges.empty)
  pending.committed()
  return pending
}

test('at first nothing is known: all pages go whole, whatever was written', () => {
  const pending = new PendingPages(pages)
  const { known, whole } = pending.harvested(of(1, 2))
  expect(listed(known)).toEqual([])
  expect(whole.pageCount).toBe(pages)
  pending.committed()
  expect(pending.unsynced.pageCount).toBe(0)
})

test('a checkpoint that fails leaves its pages to the next one, whole; what is written since is known', () => {
  const pending = clean()
  expect(listed(pending.harvested(of(1, 2)).known)).toEqual([1, 2])
  const { known, whole } = pending.harvested(of(2, 3))
  expect([listed(known), listed(whole)]).toEqual([[3], [1, 2]])
  pending.committed()
  expect(listed(pending.harvested(of(2)).known)).toEqual([2])
})

test('what went early is not captured again at the end, unless it was written again', () => {
  const pending = clean()
  pending.sentEarly(7, of(4, 5)).bytes += 100
  pending.sentEarly(7, of(6)).bytes += 10
  expect(pending.sent).toMatchObject({ epoch: 7, bytes: 110 })
  expect(listed(pending.sent?.pages)).toEqual([4, 5, 6])
  const { known, whole } = pending.harvested(of(5, 9))
  expect([listed(known), listed(whole)]).toEqual([[5, 9], []])
  expect(listed(pending.sent?.pages)).toEqual([4, 5, 6])
  pending.committed()
  expect(pending.sent).toBeUndefined()
  expect(listed(pending.unsynced)).toEqual([])
})

test('what went early goes whole when its checkpoint fails, and when the standby drops it', () => {
  const failed = clean()
  failed.sentEarly(7, of(4, 5))
  failed.harvested(of(1))
  expect(listed(failed.harvested(PageRanges.empty).whole)).toEqual([1, 4, 5])
  // It is still counted with its epoch: the standby has it.
  expect(listed(failed.sent?.pages)).toEqual([4, 5])

  const dropped = clean()
  dropped.sentEarly(7, of(4, 5))
  dropped.seeding()
  expect(dropped.sent).toBeUndefined()
  expect(listed(dropped.unsynced)).toEqual([4, 5])
})

test('another connection: nothing is known again, until the image has been compared', () => {
  const pending = clean()
  pending.sentEarly(3, of(1))
  pending.forgetAll()
  expect(pending.unsynced.pageCount).toBe(pages)
  expect(pending.sent).toBeUndefined()
  pending.onlyDiffer(of(8, 9))
  expect(listed(pending.unsynced)).toEqual([8, 9])
})

test('misuse is a defect', () => {
  const pending = clean()
  expect(() => pending.committed()).toThrow(expect.objectContaining({ code: 'INTERNAL' }))
  pending.harvested(of(1))
  expect(() => pending.sentEarly(1, of(1, 2))).toThrow(expect.objectContaining({ code: 'INTERNAL' }))
})

test('pages that are sent early belong to the epoch that carries them', () => {
  const broken = expect.objectContaining({ code: 'INTERNAL' })
  const pending = clean()
  pending.sentEarly(7, of(1))
  expect(() => pending.sentEarly(8, of(2))).toThrow(broken)
  expect(() => pending.onlyDiffer(of(3))).toThrow(broken)
  // They would count as committed, and be lost should their own checkpoint fail.
  const sooner = clean()
  sooner.harvested(PageRanges.empty)
  sooner.sentEarly(8, of(1))
  expect(() => sooner.committed()).toThrow(broken)
  expect(listed(sooner.harvested(PageRanges.empty).known)).toEqual([])
  expect(listed(sooner.unsynced)).toEqual([1])
})

const call = fc.record({
  what: fc.constantFrom(
    'harvested',
    'harvested',
    'sentEarly',
    'committed',
    'seeding',
    'onlyDiffer',
    'forgetAll',
  ),
  epoch: fc.nat(2),
  pages: fc.uniqueArray(fc.nat(pages - 1), { maxLength: 4 }),
})

test('whatever is called in whatever order, a page is in one place, and a call that is refused moves none', () => {
  fc.assert(
    fc.property(fc.array(call, { maxLength: 40 }), (calls) => {
      const pending = clean()
      const places = new Array<'clean' | 'unsynced' | 'early'>(pages).fill('clean')
      const inPlace = (place: string) => places.flatMap((at, page) => (at === place ? [page] : []))
      const move = (place: 'clean' | 'unsynced' | 'early', list: number[]) => {
        for (const page of list) places[page] = place
      }
      for (const { what, epoch, pages: list } of calls) {
        const [unsynced, early] = [inPlace('unsynced'), inPlace('early')]
        try {
          if (what === 'harvested') {
            const { known, whole } = pending.harvested(of(...list))
            expect(listed(whole)).toEqual(unsynced)
            expect(new Set(listed(known))).toEqual(new Set(list.filter((page) => !unsynced.includes(page))))
            move('unsynced', [...list, ...early])
          } else if (what === 'sentEarly') {
            pending.sentEarly(epoch, of(...list))
            expect(list.filter((page) => unsynced.includes(page))).toEqual([])
            move('early', list)
          } else if (what === 'committed') {
            pending.committed()
            // What was sent early since stays early: only what was harvested is clean.
            move('clean', unsynced)
          } else if (what === 'seeding') {
            pending.seeding()
            move('unsynced', early)
          } else {
            if (what === 'forgetAll') pending.forgetAll()
            else pending.onlyDiffer(of(...list))
            move('clean', [...places.keys()])
            move('unsynced', what === 'forgetAll' ? [...places.keys()] : list)
          }
        } catch (error) {
          if (!(error instanceof BrokenInvariant)) throw error
        }
        expect(listed(pending.unsynced)).toEqual(inPlace('unsynced'))
        // All that is early is known to have been sent.
        const sent = listed(pending.sent?.pages) ?? []
        expect(inPlace('early').filter((page) => !sent.includes(page))).toEqual([])
      }
      pending.seeding()
      expect(listed(pending.unsynced)).toEqual(
        [...inPlace('unsynced'), ...inPlace('early')].sort((a, b) => a - b),
      )
    }),
    { numRuns: 2000 },
  )
})

type Step = { what: 'write' | 'early' | 'commit' | 'fail' | 'reconnect' | 'seed'; pages: number[] }
const step: fc.Arbitrary<Step> = fc.record({
  what: fc.constantFrom('write', 'write', 'early', 'commit', 'commit', 'fail', 'reconnect', 'seed'),
  pages: fc.uniqueArray(fc.nat(pages - 1), { maxLength: 6 }),
})

test('in any course the standby ends with what the guest has', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      // Versions of each page: the guest's, the shadow's, the image's, and what the standby holds beside it.
      const guest = new Array<number>(pages).fill(1)
      const shadow = new Array<number>(pages).fill(0)
      const image = new Array<number>(pages).fill(0)
      const held = new Map<number, number>()
      const dirty = new Set<number>()
      const pending = new PendingPages(pages)
      let epoch = 1
      const take = (within = PageRanges.all(pages)) => {
        const taken = [...dirty].filter((page) => within.has(page))
        for (const page of taken) dirty.delete(page)
        return of(...taken)
      }
      /** What a delta tells depends on the shadow: it is of no use where that is not what the standby has. */
      const capture = (ranges: PageRanges, whole: boolean, into: Map<number, number> | number[]) => {
        for (const page of ranges.pages()) {
          const theirs = held.get(page) ?? image[page]
          if (!whole) expect(shadow[page]).toBe(theirs)
          shadow[page] = guest[page]!
          if (into instanceof Map) into.set(page, guest[page]!)
          else into[page] = guest[page]!
        }
      }
      for (const { what, pages: list } of steps) {
        if (what === 'write')
          for (const page of list) {
            guest[page]!++
            dirty.add(page)
          }
        else if (what === 'early' && pending.unsynced.pageCount === 0) {
          const taken = take(of(...list))
          if (taken.pageCount === 0) continue
          pending.sentEarly(epoch, taken)
          capture(taken, false, held)
        } else if (what === 'commit' || what === 'fail') {
          const { known, whole } = pending.harvested(take())
          // A pause that was broken: captured, and never sent.
          const arriving = what === 'commit' ? held : new Map(held)
          capture(known, false, arriving)
          capture(whole, true, arriving)
          if (what === 'fail') continue
          for (const [page, version] of held) image[page] = version
          held.clear()
          pending.committed()
          epoch++
          expect(image).toEqual(guest)
        } else if (what === 'reconnect') {
          held.clear()
          take()
          pending.forgetAll()
        } else if (what === 'seed') {
          held.clear()
          pending.seeding()
          const { known, whole } = pending.harvested(take())
          capture(whole, true, image)
          capture(known, false, image)
          pending.committed()
          expect(image).toEqual(guest)
        }
      }
    }),
    { numRuns: 2000 },
  )
})
