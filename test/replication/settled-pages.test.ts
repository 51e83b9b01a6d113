/** What is believed to stay as it is: mostly right, and when it is not, not much is sent in vain. */
import { describe, expect, test } from 'vitest'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { SettledPages, type Speculate, wastedShareMax } from '../../src/replication/settled-pages.ts'
import { HotPages } from '../../src/tracking/hot-pages.ts'
import { seededRandom } from '../support/random.ts'

const pages = 512
const pageBytes = 100
/** Of an epoch, at the look. */
const left = 0.25
/** Device state and the like. */
const otherBytes = 1_000
const random = seededRandom()

/** In each epoch: pages written before the look, and of these the ones written again after it. */
type Guest = (epoch: number) => { before: number[]; after: number[] }

const { integer } = random
const some = (count: number, from = 0, to = pages - 1) =>
  Array.from({ length: count }, () => integer(from, to))
const guests: Record<string, Guest> = {
  'writes every page again': () => {
    const before = some(40)
    return { before, after: before }
  },
  'writes once, in rounds': (epoch) => ({
    before: Array.from({ length: 32 }, (_, i) => (epoch * 32 + i) % pages),
    after: [],
  }),
  'has pages that it writes always, and others that it writes once': (epoch) => {
    const always = Array.from({ length: 30 }, (_, i) => i)
    return {
      before: [...always, ...Array.from({ length: 30 }, (_, i) => 64 + ((epoch * 30 + i) % 400))],
      after: always,
    }
  },
  'writes at random': () => ({ before: some(60), after: some(60) }),
  'changes its ways every 200 epochs': (epoch) => {
    const before = some(40, 0, 60)
    return { before, after: Math.floor(epoch / 200) % 2 ? before : [] }
  },
}

/** @returns shares of all that was sent after it has learned the guest's ways: early, and early in vain */
function course(guest: Guest, speculate: Speculate, remembers: boolean) {
  const history = remembers ? new HotPages(pages, undefined) : undefined
  const settled = new SettledPages(pages, speculate, history)
  const of = (list: number[]) => PageRanges.of([...new Set(list)].map((page) => [page, 1]))
  const sum = { all: 0, early: 0, vain: 0 }
  for (let epoch = 0; epoch < 2000; epoch++) {
    const { before, after } = guest(epoch)
    const early = settled.choose(of(before), left)
    const again = early.intersect(of(after))
    const all = of(before).union(of(after))
    if (history) for (const page of all.pages()) history.changed[page] = 1
    history?.learn(all)
    const earlyBytes = early.pageCount * pageBytes
    const late = of(before).subtract(early).union(of(after))
    const bytes = earlyBytes + late.pageCount * pageBytes + otherBytes
    settled.learn(early, again, earlyBytes, bytes)
    if (epoch < 200) continue
    sum.all += bytes
    sum.early += earlyBytes
    sum.vain += again.pageCount * pageBytes
  }
  return { early: sum.early / sum.all, vain: sum.vain / sum.all }
}

const ways = [
  ['with a history of changes', true],
  ['without', false],
] as const

describe.each(Object.entries(guests))('a guest that %s', (_, guest) => {
  test.each(ways)('auto, %s: what is sent in vain stays below the limit', (_, remembers) => {
    expect(course(guest, 'auto', remembers).vain, `seed ${random.seed}`).toBeLessThanOrEqual(wastedShareMax)
  })
})

test('with a history, more of what is written by chance goes early', () => {
  const guest = guests['writes at random']!
  const [remembers, counts] = [course(guest, 'auto', true), course(guest, 'auto', false)]
  expect(remembers.early, `seed ${random.seed}`).toBeGreaterThan(1.2 * counts.early)
})

test.each(ways)(
  'auto, %s, learns which pages rest: nearly all of them go early, and hardly any other',
  (_, remembers) => {
    const rounds = course(guests['writes once, in rounds']!, 'auto', remembers)
    expect(rounds.early).toBeGreaterThan(0.7)
    const both = course(
      guests['has pages that it writes always, and others that it writes once']!,
      'auto',
      remembers,
    )
    expect(both.early).toBeGreaterThan(0.3)
    expect(both.vain).toBeLessThan(0.07)
  },
)

test('always takes every page, whatever becomes of it', () => {
  expect(course(guests['writes every page again']!, 'always', true).vain).toBeGreaterThan(0.3)
})
