/**
 * A guest that is protected and unprotected again and again, as by an agent that runs for a long time: prints, as JSON, how
 * what this process keeps has grown from the first cycles to the last. Run with --expose-gc.
 */
import { once } from 'node:events'
import { Primary } from '../../../src/replication/primary.ts'
import { seededRandom } from '../../support/random.ts'
import { dial, Pair, ScriptedHost } from '../pair.ts'

const [warmUps, cycles, verifications] = process.argv.slice(2).map(Number) as [number, number, number]
const pages = 64
const pair = await Pair.make({ pages, random: seededRandom(1) })

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
async function kept(): Promise<{ heap: number; native: number; resident: number }> {
  // The script's own.
  pair.guest.history.clear()
  for (let n = 0; n < 4; n++) {
    gc!()
    await new Promise(setImmediate)
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  return { heap: heapUsed, native: external, resident: rss }
}

async function grownBy(times: number, work: () => Promise<unknown>): Promise<Record<string, number>> {
  const before = await kept()
  for (let n = 0; n < times; n++) await work()
  const after = await kept()
  return {
    heap: after.heap - before.heap,
    native: after.native - before.native,
    resident: after.resident - before.resident,
  }
}

for (let n = 0; n < warmUps; n++) await cycle()
const protections = await grownBy(cycles, cycle)
const primary = await pair.protect()
for (let n = 0; n < warmUps; n++) await primary.verify()
const verified = await grownBy(verifications, () => primary.verify())
console.log(JSON.stringify({ protections, verified }))
process.exit(0)
