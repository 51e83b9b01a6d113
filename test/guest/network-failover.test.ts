/**
 * A client's TCP connection through failovers, by agents that protect with held outputs: two hosts in a namespace, their taps
 * on one bridge, the client in another namespace. Every answer that the client got must still hold afterwards.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { consoleAt, demoGuestOptions, untilConsole } from '../../src/qemu/demo-guest.ts'
import { Adder } from '../support/adder.ts'
import { Hosts, protect, ramBytes, until } from '../support/hosts.ts'
import { TestNetwork } from '../support/network.ts'
import { seededRandom } from '../support/random.ts'

const guestAddress = '10.78.0.2'
const failovers = 4

let network: TestNetwork
let hosts: Hosts
let a: EphemeralAgent
let b: EphemeralAgent
let client: string

beforeAll(async () => {
  network = await TestNetwork.make()
  const namespace = await network.namespace()
  const inside = ['ip', 'netns', 'exec', namespace]
  hosts = new Hosts()
  a = await hosts.add('a', {}, undefined, inside)
  b = await hosts.add('b', {}, undefined, inside)
  const options = demoGuestOptions(['workload=sum', `net=${guestAddress}/24`])
  const status = await a.client.run({
    name: 'sum',
    ramBytes,
    accel: 'tcg',
    options,
    nics: [{ bridge: 'br0' }],
  })
  client = await network.namespace()
  await network.attach(client, '10.78.0.1/24', 'br0', namespace)
  await untilConsole(
    consoleAt(status.console),
    0,
    (text) => (text.includes('sum listening') ? true : undefined),
    60_000,
  )
})

afterAll(async () => {
  await hosts[Symbol.asyncDispose]()
  await network[Symbol.asyncDispose]()
})

test(`a TCP connection survives ${failovers} failovers, and no answer is taken back`, {
  timeout: 300_000,
}, async () => {
  const random = seededRandom()
  const connection = await network.connect(client, guestAddress, 7070)
  const adder = new Adder(connection)
  await adder.add()
  let [from, to] = [a, b]
  await protect(from, 'sum', to)
  for (let n = 1; n <= failovers; n++) {
    // After a failover the hosts change roles by themselves.
    await until(from, 'sum', ({ state }) => state === 'Protected')
    // The client goes on while QEMU is killed at some moment.
    const { pid } = await from.client.guest('sum')
    const killed = delay(random.integer(50, 500)).then(() => process.kill(pid ?? Number.NaN, 'SIGKILL'))
    let over = false
    const taken = until(to, 'sum', ({ takeover }) => takeover !== null).finally(() => {
      over = true
    })
    while (!over) await adder.add()
    await killed
    await taken
    for (let i = 0; i < 20; i++) await adder.add()
    ;[from, to] = [to, from]
  }
  expect(connection.ended, `seed ${random.seed}`).toBe(undefined)
  console.log(`${adder.added} sums, the slowest after ${adder.slowestMs.toFixed(0)} ms`)
  const events = (await a.client.recentEvents()).map(({ text }) => text)
  expect(events.some((text) => text.startsWith('made the bridge br0'))).toBe(true)
})
