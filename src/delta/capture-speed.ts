/** How fast this host compares memory with its shadow: what a pause costs in which all of a guest's memory is looked at. */
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { Region } from '../memory/region.ts'
import { captureSync } from './capture.ts'

/** Larger than what a cache of a processor keeps for one program. */
const samplePages = 4096
/** The fastest counts: the others were disturbed. */
const tries = 5

let measured: number | undefined

/** Found out by doing it, once in the life of a process; takes some 20 ms. */
export function compareBytesPerMs(): number {
  measured ??= measure()
  return measured
}

function measure(): number {
  const bytes = samplePages * pageBytes
  using ram = Region.anonymous(bytes)
  using shadow = Region.anonymous(bytes)
  const content = new Uint8Array(bytes).fill(1)
  ram.write(0, content)
  shadow.write(0, content)
  const out = new Uint8Array(2 ** 20)
  const all = PageRanges.all(samplePages)
  let fastestMs = Number.POSITIVE_INFINITY
  for (let n = 0; n < tries; n++) {
    const startedAt = performance.now()
    captureSync(ram, shadow, all, { codec: 'masked', out })
    fastestMs = Math.min(fastestMs, performance.now() - startedAt)
  }
  return bytes / fastestMs
}
