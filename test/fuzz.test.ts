/**
 * A short run of each target of the parsers in TypeScript, always from the same seed and from another one; `npm run fuzz` runs
 * them for longer, and those of the C core with them. And the driver itself: it finds what it is for.
 */
import { describe, expect, test } from 'vitest'
import { longestPage, seeds } from '../scripts/fuzz/seeds.ts'
import { bent, fuzz, seededRandom, type Target } from '../scripts/fuzz/target.ts'
import { targets } from '../scripts/fuzz/targets.ts'
import { checkDelta } from '../src/delta/apply.ts'
import { Restorer } from '../src/delta/reduce.ts'
import { SubpageError } from '../src/errors.ts'
import { Region } from '../src/memory/region.ts'

const runs = 60

describe.each(Object.entries(targets))('%s', (_, make) => {
  test.each([1, Date.now() % 2 ** 31])('from seed %d', async (seed) => {
    const { executions, refused, findings } = await fuzz(await make(), { seed, runs })
    expect(findings).toEqual([])
    expect(executions).toBe(runs)
    // Forms that are all refused, or never, say nothing; by chance so few can be alike.
    if (seed === 1) expect(refused > 0 && refused < runs).toBe(true)
  })
})

test('the driver tells refusals from findings, and names the seed of each', async () => {
  const target: Target = {
    name: 'sample',
    refusals: ['FRAME_MALFORMED'],
    once({ seed }) {
      if (seed === 12) throw new TypeError('not foreseen')
      if (seed === 13) throw new SubpageError('INTERNAL', 'another code')
      if (seed % 2 === 0) throw new SubpageError('FRAME_MALFORMED', 'refused')
    },
  }
  const outcome = await fuzz(target, { seed: 10, runs: 6 })
  expect(outcome.executions).toBe(6)
  expect(outcome.refused).toBe(2)
  expect(outcome.findings.map(({ seed }) => seed)).toEqual([12, 13])
})

test('a seed bends a form always in the same way, and most seeds do bend it', () => {
  const form = new Uint8Array(200).map((_, at) => at)
  const results = Array.from({ length: 50 }, (_, seed) => bent(seededRandom(seed), form).toString('hex'))
  expect(Array.from({ length: 50 }, (_, seed) => bent(seededRandom(seed), form).toString('hex'))).toEqual(
    results,
  )
  expect(new Set(results).size).toBeGreaterThan(40)
})

test('what the targets of the C core begin with has the size of real frames, and is sound', async () => {
  const sizes = new Map<string, number>()
  for await (const { target, name, bytes } of seeds()) {
    sizes.set(target, Math.max(sizes.get(target) ?? 0, bytes.length))
    if (target === 'delta-long') expect(checkDelta(bytes, 1024).pages, name).toBeGreaterThan(500)
  }
  for (const target of ['delta-long', 'restore-long']) expect(sizes.get(target)).toBeGreaterThan(64 * 1024)
})

test('a page that is longer than any that is captured is refused', async () => {
  const image = Region.anonymous(8 * 4096)
  const restorer = new Restorer()
  await expect(restorer.restore(longestPage(), image, 1 << 26)).rejects.toMatchObject({
    code: 'DELTA_MALFORMED',
  })
  restorer.close()
  image.close()
})
