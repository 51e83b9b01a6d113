/**
 * Recordings of a guest whose every access to memory is known (known-writes.ts): each tracker must show these pages and lines, in
 * as many epochs as they were written in, and nothing else. Nothing of it is an estimate: there is no kernel in the guest.
 */
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { applySync } from 'subpage/delta/apply'
import { dataPages } from 'subpage/memory/data-pages'
import { pageBytes } from 'subpage/memory/page'
import { Region } from 'subpage/memory/region'
import { afterAll, expect, onTestFinished, test } from 'vitest'
import { type SeededRandom, seededRandom } from '../../../test/support/random.ts'
import { tinyRamBytes } from '../../../test/support/tiny-guest.ts'
import { record } from '../../src/record/recorder.ts'
import { openVm } from '../../src/record/vm-target.ts'
import type { RecordTracker } from '../../src/record/vm-tracking.ts'
import { readTrace, type Trace } from '../../src/trace.ts'
import { countHolds } from '../process/victim.ts'
import { KnownWrites, type Lines, romEnd, romStart } from '../support/known-writes.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-known-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** Edges first, then anywhere. */
async function work(known: KnownWrites, random: SeededRandom): Promise<void> {
  await known.write(0, 1, 1, 1)
  await known.write(tinyRamBytes - 1, 1, 1, 2)
  await known.write(romStart - 1, 1, 1, 3)
  await known.fill(romEnd, 1, 4)
  await known.fill(0x200000 - 3, 6, 5) // across two pages, and the border of a large one
  await known.read(0x400000, pageBytes, 1024)
  await known.rewrite(0x900000, pageBytes, 64) // zeros over what was never touched
  await known.device(0xa00010, 0xb00ffe) // its four bytes lie in two pages
  for (let step = 1; step <= 120; step++) {
    const count = random.integer(1, 40)
    const stride = random.integer(1, 3 * pageBytes)
    const at = random.integer(0xc00000, tinyRamBytes - count * stride)
    const value = random.integer(0, 255)
    if (step % 4 === 0) await known.read(at, stride, count)
    else if (step % 4 === 1) await known.rewrite(at, stride, count)
    else if (step % 8 === 2) await known.fill(at, count * 50, value)
    else await known.write(at, stride, count, value)
  }
}

/** Records what `work` does; what was there before is in the base. */
async function recorded(tracker: RecordTracker) {
  const track = tracker === 'lines' || tracker === 'pml' || tracker === 'prl' ? [tracker] : []
  const { qemu, known } = await KnownWrites.start(directory, 'tiny', track)
  onTestFinished(() => qemu.end())
  onTestFinished(() => known.close())
  await known.fill(0x300000, 5000, 9)
  known.forget()
  const path = join(directory, `${tracker}.trace`)
  const target = await openVm(directory, 'tiny', tracker)
  const holds = countHolds(target)
  const enough = new AbortController()
  const recording = record(target, {
    path,
    replace: true,
    epochMs: 10,
    forMs: undefined,
    content: true,
    signal: enough.signal,
    progress: () => undefined,
  })
  await expect.poll(holds).toBeGreaterThan(0)
  const random = seededRandom()
  await work(known, random)
  const done = holds()
  await expect.poll(holds).toBeGreaterThan(done + 1)
  enough.abort()
  await recording
  await target.close()
  return { known, trace: readTrace(path), seed: random.seed, held: heldPages(qemu.files.ram) }
}

/** What the guest has touched: to look at the rest would make pages of it. */
function heldPages(path: string): number {
  const fd = openSync(path, 'r')
  const held = dataPages(fd, tinyRamBytes)
  closeSync(fd)
  return held.pageCount
}

const together = (maps: Uint32Array, page: number): Lines =>
  BigInt(maps[2 * page]!) | (BigInt(maps[2 * page + 1]!) << 32n)

/** Over all epochs. */
function found(trace: Trace) {
  const [dirty, changed, written] = [new Set<number>(), new Map<number, Lines>(), new Map<number, Lines>()]
  for (const epoch of trace.epochs())
    for (const [index, page] of [...epoch.dirty.pages()].entries()) {
      dirty.add(page)
      const add = (lines: Map<number, Lines>, maps: Uint32Array) => {
        const of = together(maps, index)
        if (of !== 0n) lines.set(page, (lines.get(page) ?? 0n) | of)
      }
      add(changed, epoch.changedMaps)
      if (epoch.writtenMaps) add(written, epoch.writtenMaps)
    }
  return { dirty, changed, written }
}

function memoryOf(trace: Trace): Buffer {
  using memory = Region.anonymous(tinyRamBytes)
  for (const delta of trace.base()) applySync(memory, delta)
  for (const { content } of trace.epochs()) for (const delta of content!) applySync(memory, delta)
  return Buffer.from(memory.read(0, tinyRamBytes))
}

/** Of 8,192: 1,024 that are only read in a row, and what each of the random steps may touch. */
const heldPagesMax = 4000

const sorted = (pages: Iterable<number>) => [...pages].sort((a, b) => a - b)
const lines = (map: Map<number, Lines>) =>
  sorted(map.keys()).map((page) => `${page}: ${map.get(page)!.toString(16)}`)

test.each(['userfault', 'compare', 'lines', 'pml', 'prl'] as const)(
  '%s: exactly the pages and lines that were written',
  async (tracker) => {
    const { known, trace, seed, held } = await recorded(tracker)
    const { dirty, changed, written } = found(trace)
    const so = `seed ${seed}`
    const touched = new Set([...known.stored.keys(), ...known.byDevice])
    const seesOnlyChanges = tracker === 'compare' || tracker === 'prl'
    expect(sorted(dirty), so).toEqual(sorted(seesOnlyChanges ? known.changed.keys() : touched))
    expect(lines(changed), so).toEqual(lines(known.changed))
    if (tracker === 'lines') {
      // Of what devices write the plugin sees nothing: what has changed counts.
      const seen = new Map(known.stored)
      for (const [page, of] of known.changed) seen.set(page, (seen.get(page) ?? 0n) | of)
      expect(lines(written), so).toEqual(lines(seen))
    }
    expect(memoryOf(trace).equals(known.memory), so).toBe(true)
    expect(held, so).toBeLessThan(heldPagesMax)
  },
)
