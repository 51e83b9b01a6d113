/** A standby that is down is called again and again, for as long as it takes: that costs the arbiter nothing. */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { realClock } from '../../src/replication/clock.ts'
import { Primary } from '../../src/replication/primary.ts'
import { seededRandom } from '../support/random.ts'
import { Pair } from './pair.ts'
import { ScriptedArbiter } from './scripted-host.ts'
import { dial } from './sockets.ts'

test('twenty attempts to reach a standby that is down ask the arbiter nothing', async () => {
  const arbiter = new ScriptedArbiter()
  const pair = await Pair.make({ random: seededRandom(), arbiter })
  onTestFinished(() => pair[Symbol.asyncDispose]())
  let [attempts, asked] = [0, 0]
  for (const method of ['claim', 'holder', 'leaveMark', 'seesMark'] as const) {
    const original = arbiter[method].bind(arbiter) as (...given: unknown[]) => unknown
    Object.assign(arbiter, {
      [method]: (...given: unknown[]) => {
        asked++
        return original(...given)
      },
    })
  }
  pair.primary = Primary.resume({
    ...pair.options,
    exposed: false,
    // Only the attempts are a hundred times as fast, not the watch that looks at the arbiter now and then.
    clock: { ...realClock, sleep: (ms, signal) => realClock.sleep(ms < 10_000 ? ms / 100 : ms, signal) },
    connect: async () => {
      attempts++
      throw new SubpageError('PEER_UNREACHABLE', 'it is down')
    },
  })
  await expect.poll(() => attempts).toBeGreaterThan(20)
  expect(asked).toBe(0)
})

// A welcome may take half a minute.
test('a supervisor that ends while it connects waits for no welcome', { timeout: 15_000 }, async () => {
  const streams: Socket[] = []
  const silent = createServer((stream) => streams.push(stream)).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  const pair = await Pair.make({ random: seededRandom() })
  onTestFinished(async () => {
    await pair[Symbol.asyncDispose]()
    for (const stream of streams) stream.destroy()
    silent.close()
  })
  let answer: () => void = () => undefined
  const connected = new Promise<void>((resolve) => {
    answer = resolve
  })
  let asked = false
  pair.primary = Primary.resume({
    ...pair.options,
    exposed: false,
    connect: async () => {
      asked = true
      await connected
      return await dial(port)
    },
  })
  await expect.poll(() => asked).toBe(true)
  const detached = pair.primary.detach()
  answer()
  await detached
})
