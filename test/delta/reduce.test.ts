/** Reduce and restore through the addon: whatever a memory goes through, the image follows; handles in every state. */
import { afterEach, describe, expect, test } from 'vitest'
import { applySync, checkDelta } from '../../src/delta/apply.ts'
import { captureSync } from '../../src/delta/capture.ts'
import { type ReducePart, Reducer, Restorer, squeezeMethods } from '../../src/delta/reduce.ts'
import { compareRegionsSync } from '../../src/memory/hash.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { seededRandom } from '../support/random.ts'

const pages = 64
const epochs = 40
const all = PageRanges.all(pages)
const closing: { close(): void }[] = []
afterEach(() => {
  for (const one of closing.splice(0)) one.close()
})

function owned<T extends { close(): void }>(one: T): T {
  closing.push(one)
  return one
}

const noStats = () => ({ lines: 0, dictionaryLines: 0, sharedLines: 0, similarPages: 0, bodyBytes: 0 })

/** Copies of pages, repeated bytes, new content. */
function write(ram: Region, random: ReturnType<typeof seededRandom>): PageRanges {
  const dirty: [number, number][] = []
  for (let n = 0; n < 12; n++) {
    const [page, other] = [random.integer(0, pages - 1), random.integer(0, pages - 1)]
    const content = ram.read(other * pageBytes, pageBytes)
    const kind = random.integer(0, 2)
    if (kind === 1) content.fill(random.integer(0, 255), 0, 64 * random.integer(1, 64))
    if (kind === 2) for (let at = 0; at < 512; at++) content[at] = random.integer(0, 255)
    ram.write(page * pageBytes, content)
    dirty.push([page, 1])
  }
  return PageRanges.of(dirty)
}

describe.each<[string, ReducePart[]]>([
  ['no part', []],
  ['the dictionary', ['dictionary']],
  ['sharing', ['sharing']],
  ['similar pages', ['similar']],
  ['all parts', ['dictionary', 'sharing', 'similar']],
])('%s', (_, parts) => {
  test.each(squeezeMethods)(
    'with %s: the image follows, and both sides have learnt the same',
    async (method) => {
      const random = seededRandom()
      const [ram, shadow, image] = [0, 1, 2].map(() => owned(Region.anonymous(pages * pageBytes)))
      const reducer = owned(new Reducer(pages, parts, 256))
      const restorer = owned(new Restorer())
      const out = new Uint8Array(2 ** 20)
      const stats = noStats()
      let [plainBytes, sentBytes] = [0, 0]
      for (let epoch = 0; epoch < epochs; epoch++) {
        const dirty = epoch === 0 ? all : write(ram!, random)
        const { bytes } = captureSync(ram!, shadow!, dirty, { codec: 'masked', whole: epoch === 0, out })
        const delta = out.subarray(0, bytes)
        reducer.begin(epoch > 0)
        reducer.include(dirty)
        const reduced = await reducer.reduce(delta, shadow, method, stats)
        const restored = reduced ? await restorer.restore(reduced, image!, 2 ** 24) : delta
        if (!reduced) restorer.learn(delta)
        checkDelta(restored, pages)
        applySync(image!, restored)
        expect(compareRegionsSync(ram!, image!, all), `epoch ${epoch}, seed ${random.seed}`).toBeUndefined()
        if (parts.includes('dictionary')) expect(restorer.digest).toBe(reducer.digest)
        plainBytes += bytes
        sentBytes += (reduced ?? delta).length
      }
      expect(sentBytes).toBeLessThanOrEqual(plainBytes * 1.02)
      if (parts.length === 3) expect(sentBytes).toBeLessThan(plainBytes / 2)
    },
  )
})

test('damage is refused with one clear error', async () => {
  const image = owned(Region.anonymous(pages * pageBytes))
  for (const bytes of ['', 'SR', 'SR\x01\x00', 'SD\x01\x00\x00', 'SR\x02\x00\x00', 'SR\x01\xff\x00']) {
    const restorer = owned(new Restorer())
    await expect(restorer.restore(Buffer.from(bytes, 'latin1'), image, 2 ** 20)).rejects.toMatchObject({
      code: 'DELTA_MALFORMED',
    })
  }
})

test('a handle that is closed, or busy, says so; closing waits', async () => {
  const ram = owned(Region.anonymous(2048 * pageBytes))
  const shadow = owned(Region.anonymous(2048 * pageBytes))
  const random = seededRandom(1)
  const noise = Uint8Array.from({ length: pageBytes }, () => random.integer(0, 255))
  for (let page = 0; page < 200; page++)
    ram.write(
      page * pageBytes,
      noise.map((byte) => byte ^ page),
    )
  const out = new Uint8Array(2 ** 20)
  const { bytes } = captureSync(ram, shadow, PageRanges.of([[0, 200]]), { codec: 'masked', out })
  const delta = out.subarray(0, bytes)
  const reducer = new Reducer(2048, ['dictionary'])
  const running = reducer.reduce(delta, shadow, 'zstd', noStats())
  expect(() => reducer.begin(true)).toThrow(/busy/)
  expect(() => reducer.digest).toThrow(/busy/)
  reducer.close()
  await expect(running).rejects.toThrow(/closed/)
  expect(() => reducer.begin(true)).toThrow(/closed/)
  expect(() => reducer.memoryBytes).toThrow(/closed/)
  reducer.close()
  expect(() => new Reducer(16, [], 100)).toThrow(TypeError)
})
