/** A capture that two threads share: the same pages, the same image, the same counts; and one that is too large ends whole. */
import { availableParallelism } from 'node:os'
import { expect, test } from 'vitest'
import { applySync } from '../../src/delta/apply.ts'
import { cacheShadow, fullShadow, hashShadow, type Shadow } from '../../src/delta/shadow.ts'
import { spareBuffers } from '../../src/delta/spare-buffers.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { DeltaWriter } from '../../src/replication/delta-writer.ts'
import { seededRandom } from '../support/random.ts'
import { digestOf } from './scripted-guest.ts'

const pages = 20_000
const all = PageRanges.all(pages)
const random = seededRandom()

const shadows: Record<string, () => Shadow> = {
  full: () => fullShadow(pages),
  hash: () => hashShadow(pages),
  cache: () => cacheShadow(pages, 12_000 * 4096),
}

function write(ram: Region, count: number): Set<number> {
  const written = new Set<number>()
  for (let n = 0; n < count; n++) {
    const page = random.integer(0, pages - 1)
    ram.write(page * 4096 + random.integer(0, 500) * 8, Uint8Array.of(random.integer(1, 255), n, n >> 8))
    written.add(page)
  }
  return written
}

test.each(Object.entries(shadows))('a shadow that is %s: the image is the memory', async (_, make) => {
  using ram = Region.anonymous(pages * 4096)
  using image = Region.anonymous(pages * 4096)
  const shadow = make()
  const writer = new DeltaWriter(ram, shadow, 'masked')
  const take = async (ranges: PageRanges, whole: boolean, changed?: Uint8Array) => {
    const captured = await writer.capture(ranges, whole, Number.POSITIVE_INFINITY, changed)
    for (const { buffer, bytes } of captured.chunks) {
      applySync(image, buffer.subarray(0, bytes))
      spareBuffers.keep(buffer)
    }
    return captured.stats
  }
  write(ram, 30_000)
  await take(all, true)
  expect(digestOf(image), `seed ${random.seed}`).toBe(digestOf(ram))
  const written = write(ram, 3_000)
  const changed = new Uint8Array(pages)
  const stats = await take(all, false, changed)
  expect(digestOf(image), `seed ${random.seed}`).toBe(digestOf(ram))
  expect(stats.pages).toBe(pages)
  if (shadow.kind !== 'cache') {
    const said = new Set([...changed.keys()].filter((page) => changed[page]))
    expect([...said].every((page) => written.has(page))).toBe(true)
    expect(said.size).toBe(stats.changedPages)
  }
  if (availableParallelism() > 1) expect(writer.sharedCaptures).toBeGreaterThanOrEqual(2)
  shadow.close()
})

test('one that is more than a pause can take up is refused once both threads have ended', async () => {
  using ram = Region.anonymous(pages * 4096)
  const shadow = fullShadow(pages)
  const writer = new DeltaWriter(ram, shadow, 'page')
  for (let page = 0; page < pages; page++) ram.write(page * 4096, Uint8Array.of(1))
  await expect(writer.capture(all, false, 2 ** 22)).rejects.toMatchObject({ code: 'PAUSE_BROKEN' })
  // Nothing uses the memory any more.
  shadow.close()
})
