/** The benchmark in its tiny size: it runs, verifies what it measures, and prints what its readers expect. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { DeltaBench } from '../../bench/delta.ts'
import { run } from '../../bench/delta.ts'
import { patternNames } from '../../bench/delta-patterns.ts'
import { readEpochs, writeEpochs } from '../../bench/recorded-epochs.ts'
import { run as runShadow, type ShadowBench } from '../../bench/shadow.ts'
import { codecNames } from '../../src/delta/codec.ts'
import { cpuPaths } from '../support/cpu.ts'
import { noise } from './memories.ts'

it('measures every codec, path, pattern and order, for capture and apply', async () => {
  const first = (await run({ tiny: true })).json as DeltaBench
  const second = (await run({ tiny: true })).json as DeltaBench
  expect(first.hash).toMatch(/^[0-9a-f]{1,16}$/)
  expect(second.hash).toBe(first.hash)
  const synthetic = first.rows.filter(({ pattern }) => !pattern.startsWith('epochs-'))
  expect(synthetic).toHaveLength(2 * codecNames.length * cpuPaths().length * patternNames.length * 2)
  for (const row of first.rows) {
    expect(Object.keys(row).sort()).toEqual(
      'bytesPerPage codec gbPerS nsPerPage op order path pattern vsMemcpy vsXorRlePipe'.split(' '),
    )
    for (const value of [row.gbPerS, row.vsMemcpy, row.vsXorRlePipe, row.nsPerPage])
      expect(value).toBeGreaterThan(0)
  }
  // The codecs rank as their design says, whatever the machine.
  const size = (codec: string, pattern: string) =>
    first.rows.find((row) => row.codec === codec && row.pattern === pattern)!.bytesPerPage
  expect(size('masked', 'mix')).toBeLessThan(size('line', 'mix'))
  expect(size('line', 'mix')).toBeLessThan(size('page', 'mix'))
  expect(size('masked', 'mix') / size('xor-rle', 'mix')).toBeLessThan(1.02)
  expect(size('masked', 'code-zero')).toBeLessThan(4)
})

it('compares what caches hold, on patterns and on a recorded trace', async () => {
  const trace = join(import.meta.dirname, '../../lab/test/analysis/small.trace')
  const { rows, hash } = (await runShadow({ tiny: true }, [trace])).json as ShadowBench
  expect(hash).toMatch(/^[0-9a-f]{1,16}$/)
  expect(rows.map(({ pattern }) => pattern)).toContain('trace small')
  for (const { hitRate } of rows) {
    expect(Object.keys(hitRate)).toEqual(['ours', 'qemuAge', 'lru'])
    for (const rate of Object.values(hitRate)) expect(rate).toBeLessThanOrEqual(1)
  }
  // These ranks follow from the policies, whatever the machine: a round that is larger than the cache defeats both others.
  const rate = (pattern: string) => rows.filter((row) => row.pattern === pattern).at(-1)!.hitRate
  expect(rate('rounds').ours).toBeGreaterThan(0.3)
  expect(rate('rounds').lru).toBe(0)
  expect(rate('skewed').ours).toBeGreaterThan(rate('skewed').qemuAge!)
})

it('reads recorded epochs as they were written, and nothing else', () => {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-epochs-'))
  try {
    const path = join(folder, 'one.epochs')
    const epochs = [
      { pages: Uint32Array.of(3, 70_000), before: noise(1, 8192), after: noise(2, 8192) },
      { pages: new Uint32Array(0), before: new Uint8Array(0), after: new Uint8Array(0) },
      { pages: Uint32Array.of(9), before: noise(3, 4096), after: noise(4, 4096) },
    ]
    writeEpochs(path, epochs)
    const read = readEpochs(path)
    expect(read.map(({ pages }) => [...pages])).toEqual(epochs.map(({ pages }) => [...pages]))
    for (const [i, epoch] of epochs.entries()) {
      expect(Buffer.compare(read[i]!.before, epoch.before)).toBe(0)
      expect(Buffer.compare(read[i]!.after, epoch.after)).toBe(0)
    }
    writeEpochs(path, [{ ...epochs[0]!, after: noise(2, 8191) }])
    expect(() => readEpochs(path)).toThrow(/cut short/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
