import { expect, it } from 'vitest'
import { applySync, apply } from '../../src/delta/apply.ts'
import { capture, captureSync } from '../../src/delta/capture.ts'
import { codecNames } from '../../src/delta/codec.ts'
import { compareRegionsSync, hashBlocks, checksum64 } from '../../src/memory/hash.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'

it.each(codecNames)('%s', async (codec) => {
  const n = 300
  const ram = Region.anonymous(n * 4096), shadow = Region.anonymous(n * 4096), image = Region.anonymous(n * 4096)
  const out = new Uint8Array(70000)
  let seed = 1
  const rnd = (k: number) => { seed = (Math.imul(seed, 1103515245) + 12345) >>> 0; return (seed >>> 8) % k }
  for (let round = 0; round < 6; round++) {
    for (let i = 0; i < 400; i++) {
      const len = 1 + rnd(rnd(3) ? 8 : 5000)
      const at = rnd(n * 4096 - len)
      ram.write(at, Uint8Array.from({ length: len }, () => rnd(3) ? rnd(256) : 0))
    }
    let from: any
    let bytes = 0
    do {
      const r: any = await (round % 2 ? capture : captureSync)(ram, shadow, PageRanges.all(n), { codec, whole: round === 0, out, ...(from && { from }) })
      from = r.next
      bytes += r.bytes
      await (round % 2 ? applySync : apply)(image, out.subarray(0, r.bytes))
    } while (from)
    console.log(codec, bytes)
    expect(compareRegionsSync(ram, shadow, PageRanges.all(n))).toBeUndefined()
    expect(compareRegionsSync(ram, image, PageRanges.all(n))).toBeUndefined()
  }
  expect((await hashBlocks(ram, PageRanges.all(3), 64)).length).toBe(3 * 64 * 16)
  expect(checksum64(new Uint8Array([1, 2, 3, 4]))).toBe(checksum64(new Uint8Array([1]), new Uint8Array([2, 3, 4])))
})
