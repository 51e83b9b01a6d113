/**
 * A worker that ends while its captures run in the thread pool, by itself or by force: the process must live, and the
 * main thread's own regions must work on. Prints "survived".
 */
import { createRequire } from 'node:module'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'

const addon = createRequire(import.meta.url)(process.env.SUBPAGE_ADDON)
const bytes = 64 * 2 ** 20
const pairs = Uint32Array.of(0, bytes / 4096)

if (isMainThread) {
  const own = addon.regionAnonymous(bytes)
  for (let round = 0; round < 6; round++) {
    const worker = new Worker(new URL(import.meta.url), { env: process.env })
    await new Promise((resolve) => worker.once('message', resolve))
    const ended = new Promise((resolve) => worker.once('exit', resolve))
    if (round % 2) await worker.terminate()
    else worker.postMessage('exit')
    await ended
  }
  await addon.hashBlocksAsync(own, pairs, 1, 4096, new Uint8Array((bytes / 4096) * 16))
  console.log('survived')
} else {
  parentPort.once('message', () => process.exit(0))
  for (let i = 0; i < 8; i++) {
    const ram = addon.regionAnonymous(bytes)
    const shadow = addon.regionAnonymous(bytes)
    const results = new Float64Array(7)
    void addon.captureAsync(
      ram,
      shadow,
      pairs,
      1,
      3,
      true,
      new Uint8Array(2 ** 20),
      0,
      0,
      results,
      undefined,
      1,
      undefined,
      undefined,
    )
    // Also regions that are closed under way, and some that nobody ever closes.
    if (i % 2) addon.regionClose(ram)
  }
  parentPort.postMessage('running')
}
