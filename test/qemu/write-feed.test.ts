/**
 * What is heard of a protection's harvests is what was written, by whichever harvest it was taken; and where that is not known
 * it is said to be unknown. A tracker whose marks are a set stands for the kernel's: the real ones are in
 * test/tracking/conformance.test.ts.
 */
import { expect, test } from 'vitest'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { WriteFeed } from '../../src/qemu/write-feed.ts'
import type { Tracker } from '../../src/tracking/tracker.ts'

const pages = 64
const all = PageRanges.all(pages)
const of = (...list: number[]) => PageRanges.of(list.map((page) => [page, 1]))
const listed = (ranges: PageRanges | undefined) => ranges && [...ranges.pages()]
const marksLeftAlone = () => {
  throw new Error('a protection is open: nobody else may touch the marks')
}

/** As the userfault tracker: the first harvest names everything, and so does the one after an error. */
class Marks implements Tracker {
  readonly name = 'userfault'
  readonly fallback = undefined
  fails = false
  #written = PageRanges.empty
  #everything = true

  write(...list: number[]): void {
    this.#written = this.#written.union(of(...list))
  }

  harvest(): PageRanges {
    const everything = this.#everything
    const taken = this.#take(all)
    return everything ? all : taken
  }

  readonly early = {
    peek: () => (this.#everything ? PageRanges.empty : this.#written),
    harvest: (within: PageRanges) => (this.#everything ? PageRanges.empty : this.#take(within)),
  }

  close(): void {}

  #take(within: PageRanges): PageRanges {
    this.#everything = true
    const taken = this.#written.intersect(within)
    this.#written = this.#written.subtract(within)
    if (this.fails) throw new Error('the scan failed half-way')
    this.#everything = false
    return taken
  }
}

function observed() {
  const feed = new WriteFeed()
  const marks = new Marks()
  const tracker = feed.observe(marks)
  const early = tracker.early
  if (!early) throw new Error('the early harvest was lost on the way')
  const begin = () => expect(feed.begin(marksLeftAlone)).toBe(false)
  const heard = () => listed(feed.end(marksLeftAlone))
  return { feed, marks, tracker, early, begin, heard }
}

test('hears whole harvests and early ones, each page of either', () => {
  const { marks, tracker, early, begin, heard } = observed()
  tracker.harvest()
  begin()
  marks.write(1, 2, 3)
  expect(listed(early.harvest(of(2, 9)))).toEqual([2])
  marks.write(4)
  expect(listed(tracker.harvest())).toEqual([1, 3, 4])
  marks.write(2)
  early.harvest(of(2))
  expect(heard()).toEqual([1, 2, 3, 4])
  begin()
  expect(heard()).toEqual([])
})

test('looking changes nothing', () => {
  const { marks, tracker, early, begin, heard } = observed()
  tracker.harvest()
  begin()
  marks.write(5)
  expect(listed(early.peek())).toEqual([5])
  expect(heard()).toEqual([])
  expect(listed(tracker.harvest())).toEqual([5])
})

test('a harvest that names everything tells nothing of what was written', () => {
  const { marks, tracker, early, begin, heard } = observed()
  begin()
  marks.write(7)
  expect(listed(early.harvest(all))).toEqual([])
  tracker.harvest()
  expect(heard()).toBeUndefined()
  begin()
  marks.write(8)
  tracker.harvest()
  expect(heard()).toEqual([8])
})

test.each([
  ['whole', ({ tracker }: ReturnType<typeof observed>) => tracker.harvest()],
  ['early', ({ early }: ReturnType<typeof observed>) => early.harvest(all)],
])('after a %s harvest that failed nothing is known until a whole one has succeeded', (_, harvest) => {
  const of = observed()
  const { marks, tracker, begin, heard } = of
  tracker.harvest()
  begin()
  marks.write(3)
  marks.fails = true
  expect(() => harvest(of)).toThrow(/half-way/)
  marks.fails = false
  expect(heard()).toBeUndefined()
  begin()
  tracker.harvest()
  expect(heard()).toBeUndefined()
  begin()
  marks.write(6)
  tracker.harvest()
  expect(heard()).toEqual([6])
})

test('closing a tracker leaves the marks to others again, and closing it twice is once', () => {
  const { feed, tracker, begin } = observed()
  const second = feed.observe(new Marks())
  begin()
  tracker.close()
  tracker.close()
  begin()
  second.close()
  expect(feed.begin(() => true)).toBe(true)
  expect(listed(feed.end(() => of(9)))).toEqual([9])
})
