/** What is believed to stay as it is: mostly right, and when it is not, not much is sent in vain. */
import { describe, expect, test } from 'vitest'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { SettledPages, type Speculate, wastedShareMax } from '../../src/replication/settled-pages.ts'
import { seededRandom } from '../support/random.ts'

const pages = 512
const pageBytes = 100
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
function course(guest: Guest, speculate: Speculate) {
  const settled = new SettledPages(pages, speculate)
  const of = (list: number[]) => PageRanges.of([...new Set(list)].map((page) => [page, 1]))
  const sum = { all: 0, early: 0, vain: 0 }
  for (let epoch = 0; epoch < 2000; epoch++) {
    const { before, after } = guest(epoch)
    const early = settled.choose(of(before))
    const again = early.intersect(of(after))
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

describe.each(Object.entries(guests))('a guest that %s', (_, guest) => {
  test('auto: what is sent in vain stays below the limit', () => {
    expect(course(guest, 'auto').vain, `seed ${random.seed}`).toBeLessThanOrEqual(wastedShareMax)
  })
})

test('auto learns which pages rest: nearly all of them go early, and hardly any other', () => {
  const rounds = course(guests['writes once, in rounds']!, 'auto')
  expect(rounds.early).toBeGreaterThan(0.7)
  const both = course(guests['has pages that it writes always, and others that it writes once']!, 'auto')
  expect(both.early).toBeGreaterThan(0.3)
  expect(both.vain).toBeLessThan(0.07)
})

test('always takes every page, whatever becomes of it', () => {
  expect(course(guests['writes every page again']!, 'always').vain).toBeGreaterThan(0.3)
})
