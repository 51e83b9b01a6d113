/**
 * Regions that nobody closes: the collector unmaps those that are unreachable, and none that an operation still uses.
 * Run with --expose-gc. Prints the mapped bytes before, while an operation runs, and afterwards, as JSON.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const addon = createRequire(import.meta.url)(process.env.SUBPAGE_ADDON)
const bytes = 256 * 2 ** 20
const mapped = () => Number(/VmSize:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024

async function collect() {
  for (let i = 0; i < 5; i++) {
    gc()
    await new Promise(setImmediate)
  }
}

await collect()
const before = mapped()
const out = new Uint8Array((bytes / 4096) * 16)
const work = (() =>
  addon.hashBlocksAsync(addon.regionAnonymous(bytes), Uint32Array.of(0, bytes / 4096), 1, 4096, out))()
gc()
const during = mapped()
await work
for (let i = 0; i < 8; i++) addon.regionRead(addon.regionAnonymous(bytes), 0, new Uint8Array(1))
await collect()
// Every block is the same page of zeros: a region that was unmapped under way would have ended the process.
const same = Buffer.compare(out.subarray(0, 16), out.subarray(out.length - 16)) === 0
console.log(JSON.stringify({ bytes, during: during - before, after: mapped() - before, same }))
