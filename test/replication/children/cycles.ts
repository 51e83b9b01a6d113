/**
 * A guest that is protected and unprotected again and again, as by an agent that runs for a long time: prints, as JSON, by
 * how much what this process keeps has grown in each slice of them. Run with --expose-gc.
 *
 *   cycles WARM-UPS CYCLES VERIFICATIONS SLICES LEAK   LEAK: bytes that are kept of each on purpose
 */
import { once } from 'node:events'
import { Primary } from '../../../src/replication/primary.ts'
import { seededRandom } from '../../support/random.ts'
import { Pair } from '../pair.ts'
import { ScriptedHost } from '../scripted-host.ts'
import { dial } from '../sockets.ts'

const [warmUps, cycles, verifications, slices, leak] = process.argv.slice(2).map(Number) as [
  number,
  number,
  number,
  number,
  number,
]
const leaked: unknown[] = []
const pages = 64
const pair = await Pair.make({ pages, random: seededRandom(1) })

interface Kept {
  heap: number
  native: number
  resident: number
}

async function cycle(): Promise<void> {
  const host = await new ScriptedHost(pages).listen()
  const primary = await Primary.start({ ...pair.options, connect: () => dial(host.port) })
  await once(primary, 'epoch')
  await primary.verify()
  await primary.stop()
  await host.outcome
  host.close()
  host.waiting.image.close()
}

/** After what is finalized late, such as handles of native memory. */
async function kept(): Promise<Kept> {
  // The script's own.
  pair.guest.history.clear()
  for (let n = 0; n < 4; n++) {
    gc!()
    await new Promise(setImmediate)
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  return { heap: heapUsed, native: external, resident: rss }
}

/** Of each slice of so many: how much more is kept after it than before it. */
async function growth(times: number, work: () => Promise<unknown>): Promise<Kept[]> {
  const found: Kept[] = []
  let before = await kept()
  for (let slice = 0; slice < slices; slice++) {
    for (let n = 0; n < times / slices; n++) {
      await work()
      if (leak > 0) leaked.push(new Array(leak / 8).fill(leaked.length))
    }
    const after = await kept()
    found.push({
      heap: after.heap - before.heap,
      native: after.native - before.native,
      resident: after.resident - before.resident,
    })
    before = after
  }
  return found
}

for (let n = 0; n < warmUps; n++) await cycle()
const protections = await growth(cycles, cycle)
const primary = await pair.protect()
for (let n = 0; n < warmUps; n++) await primary.verify()
const verified = await growth(verifications, () => primary.verify())
console.log(JSON.stringify({ protections, verified }))
process.exit(0)
