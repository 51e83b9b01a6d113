/**
 * Epochs for ever: captures and applies many times with the same buffers, as protection does, and prints by how much
 * the resident memory grew in each slice of them, as JSON. Run with --expose-gc.
 */
import { createRequire } from 'node:module'

const addon = createRequire(import.meta.url)(process.env.SUBPAGE_ADDON)
const pages = 64
const [warmUps, slices, sliceEpochs] = [10_000, 5, 6_000]
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
  const args = [ram, shadow, pairs, 1, 3, false, out, 0, 0, results, undefined, 1, undefined, undefined]
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

let number = 0
while (number < warmUps) await epoch(++number)
const grown = []
for (let slice = 0; slice < slices; slice++) {
  const before = rss()
  for (let n = 0; n < sliceEpochs; n++) await epoch(++number)
  grown.push(rss() - before)
}
console.log(JSON.stringify({ grown, jobs: sliceEpochs, changed: views }))
