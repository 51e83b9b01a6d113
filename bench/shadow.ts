/**
 * What a shadow that is a cache holds: the hit rate of our policy, of QEMU's age counter and of LRU, on synthetic patterns
 * and on recorded traces (build/traces/*.trace, as `subpage record` writes them). A miss goes whole. Caches are given as a
 * share of the pages that are written at all; shares of a power of two do QEMU's table, which has that size, no wrong.
 */
import { existsSync, readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { readTrace } from 'subpage-lab/trace'
import { checksum64 } from '../src/memory/hash.ts'
import { packageRoot } from '../src/memory/native.ts'
import { PageRanges } from '../src/memory/page-ranges.ts'
import { seededRandom } from '../test/support/random.ts'
import type { BenchOptions, BenchResult } from './bench.ts'
import { policies } from './shadow-policies.ts'

export interface ShadowRow {
  pattern: string
  epochs: number
  writtenPages: number
  slots: number
  /** By policy: hits among dirty pages, 0 to 1. */
  hitRate: Record<string, number>
}

export interface ShadowBench {
  parameters: { pages: number; epochs: number; shares: number[] }
  rows: ShadowRow[]
  hash: string
}

const folder = join(packageRoot, 'build/traces')
const shares = [1 / 16, 1 / 8, 1 / 4, 1 / 2]

/** @param traces files of recorded traces, beside those of the folder */
export async function run({ tiny }: BenchOptions, traces: readonly string[] = []): Promise<BenchResult> {
  const [pages, epochs] = tiny ? [512, 60] : [16_384, 400]
  const found = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.trace')) : []
  const recorded = [...traces, ...(tiny ? [] : found.sort().map((name) => join(folder, name)))]
  const rows = [
    ...Object.keys(patterns).flatMap((name) => rowsOf(name, [...synthetic(name, pages, epochs)])),
    ...recorded.flatMap((path) =>
      rowsOf(
        `trace ${basename(path, '.trace')}`,
        [...readTrace(path).epochs()].map(({ dirty }) => dirty),
      ),
    ),
  ]
  const hash = checksum64(Buffer.from(JSON.stringify(rows))).toString(16)
  const json: ShadowBench = { parameters: { pages, epochs, shares }, rows, hash }
  return { json, text: textOf(json) }
}

function rowsOf(pattern: string, epochs: PageRanges[]): ShadowRow[] {
  const written = epochs.reduce((all, dirty) => all.union(dirty), PageRanges.empty)
  const dirtyPages = epochs.reduce((sum, { pageCount }) => sum + pageCount, 0)
  return shares.map((share) => {
    const slots = 2 ** Math.max(0, Math.floor(Math.log2(written.pageCount * share)))
    const rates = Object.entries(policies).map(([name, make]) => {
      const policy = make(written.endPage, slots)
      const hits = epochs.reduce((sum, dirty) => sum + policy.epoch(dirty), 0)
      return [name, Number((hits / dirtyPages).toFixed(4))] as const
    })
    return {
      pattern,
      epochs: epochs.length,
      writtenPages: written.pageCount,
      slots,
      hitRate: Object.fromEntries(rates),
    }
  })
}

type Random = ReturnType<typeof seededRandom>

/** The pages of an epoch. Each epoch writes about a 32nd of the memory. */
const patterns: Record<string, (epoch: number, pages: number, random: Random) => number[]> = {
  uniform: (_, pages, random) => many(pages / 32, () => random.integer(0, pages - 1)),
  skewed: (_, pages, random) => many(pages / 16, () => skewed(pages, random)),
  rounds: (epoch, pages) => many(pages / 32, (i) => (epoch * (pages / 32) + i) % (pages / 2)),
  'skewed and rounds': (epoch, pages, random) => [
    ...many(pages / 32, () => skewed(pages / 2, random)),
    ...many(pages / 32, (i) => pages / 2 + ((epoch * (pages / 32) + i) % (pages / 2))),
  ],
  'skewed, moving': (epoch, pages, random) =>
    many(pages / 16, () => (skewed(pages, random) + Math.floor(epoch / 50) * (pages / 8)) % pages),
}

const many = (count: number, one: (index: number) => number) =>
  Array.from({ length: count }, (_, i) => one(i))

/** Half of the writes go to about a sixteenth of the pages, which lie scattered. */
function skewed(pages: number, random: Random): number {
  const rank = Math.floor(pages * (random.integer(0, 2 ** 30) / 2 ** 30) ** 4)
  return (rank * 2_654_435_761) % pages
}

function* synthetic(name: string, pages: number, epochs: number): Generator<PageRanges> {
  const random = seededRandom(1)
  for (let epoch = 0; epoch < epochs; epoch++)
    yield PageRanges.of(patterns[name]!(epoch, pages, random).map((page) => [page, 1] as const))
}

function textOf({ rows, hash }: ShadowBench): string {
  const percent = (rate: number) => `${(100 * rate).toFixed(1)} %`.padStart(8)
  const names = Object.keys(policies)
  const head = `${'pattern'.padEnd(24)}${'written'.padStart(9)}${'held'.padStart(8)}${names.map((n) => n.padStart(9)).join('')}`
  const lines = rows.map(
    ({ pattern, writtenPages, slots, hitRate }) =>
      `${pattern.padEnd(24)}${String(writtenPages).padStart(9)}${String(slots).padStart(8)}${names.map((name) => ` ${percent(hitRate[name]!)}`).join('')}`,
  )
  return [head, ...lines, `hash ${hash}`].join('\n')
}
