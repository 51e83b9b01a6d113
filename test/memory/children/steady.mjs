/**
 * Epochs for ever: captures and applies many times with the same buffers, as protection does, and prints how the resident
 * memory and the native heap moved between the early epochs and the last, as JSON. Run with --expose-gc.
 */
import { createRequire } from 'node:module'

const addon = createRequire(import.meta.url)(process.env.SUBPAGE_ADDON)
const pages = 64
const epochs = 40_000
const regions = Array.from({ length: 3 }, () => addon.regionAnonymous(pages * 4096))
const [ram, shadow, image] = regions
const pairs = Uint32Array.of(0, pages)
const out = new Uint8Array(2 ** 20)
const results = new Float64Array(7)
const summary = new Float64Array(3)
const counter = new Uint8Array(8)
const deltas = new Uint8Array(2 ** 20)
let views = 0

async function epoch(number) {
  counter[number % 8] ^= number
  addon.regionWrite(ram, (number % pages) * 4096 + (number % 4088), counter)
  const args = [ram, shadow, pairs, 1, 3, false, out, 0, 0, results, 1, undefined, undefined]
  // Every other one in the thread pool: those have a job and a promise, and must give them back.
  if (number % 2 === 0) await addon.captureAsync(...args)
  else addon.capture(...args)
  deltas.set(out.subarray(0, results[0]))
  const delta = deltas.subarray(0, results[0])
  if (number % 2 === 0) await addon.applyAsync(image, delta, summary)
  else addon.apply(image, delta, summary)
  views += summary[2]
}

const rss = () => {
  gc()
  return process.memoryUsage.rss()
}

for (let i = 1; i <= epochs / 4; i++) await epoch(i)
const early = rss()
for (let i = epochs / 4 + 1; i <= epochs; i++) await epoch(i)
console.log(JSON.stringify({ grown: rss() - early, changed: views }))
