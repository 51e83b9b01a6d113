/**
 * The worst moment for a host to stop: the primary has the standby's acknowledgement and is about to order the release. The
 * standby takes over meanwhile; when the host goes on, QEMU executes the release, and nothing of it may reach the network.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { consoleAt, demoGuestOptions, typeLine, untilConsole } from '../../src/qemu/demo-guest.ts'
import { tapName } from '../../src/qemu/nic.ts'
import { ip } from '../support/network.ts'
import { type TestHost, TwoHosts } from '../support/two-hosts.ts'

const name = 'fenced'
const guestAddress = '10.78.0.2'

let hosts: TwoHosts
beforeAll(async () => {
  hosts = await TwoHosts.make()
})
afterAll(async () => hosts[Symbol.asyncDispose]())

/** Counts what comes from the guest's copy on a host, also after its tap has gone. */
async function countFrames({ namespace, stateDirectory }: TestHost): Promise<() => Promise<number>> {
  const nft = (line: string) => ip('netns', 'exec', namespace, 'nft', line)
  await nft('add table bridge seen')
  await nft('add counter bridge seen frames')
  await nft('add chain bridge seen in { type filter hook prerouting priority 0; }')
  await nft(
    `add rule bridge seen in iifname "${tapName(join(stateDirectory, 'guests', name), 0)}" counter name "frames"`,
  )
  return async () => {
    const [, packets] = /packets (\d+)/.exec(await nft('list counter bridge seen frames')) ?? []
    return Number(packets)
  }
}

async function until<T>(look: () => Promise<T | undefined | false>): Promise<T> {
  for (const deadline = performance.now() + 60_000; ; await delay(5)) {
    const found = await look()
    if (found) return found
    expect(performance.now()).toBeLessThan(deadline)
  }
}

test('the old copy does not speak once more after the takeover', { timeout: 180_000 }, async () => {
  const [a, b] = hosts.hosts
  const frames = await countFrames(a)
  await b.start()
  const { client } = await a.start('before-release:40=stop')
  const status = await client.run({
    name,
    ramBytes: 160 * 2 ** 20,
    accel: 'tcg',
    options: demoGuestOptions(['workload=sum', `net=${guestAddress}/24`]),
    nics: [{ bridge: 'br0' }],
  })
  const console = consoleAt(status.console)
  await untilConsole(console, 0, (text) => text.includes('sum listening') || undefined, 60_000)
  // So that each checkpoint has something to release.
  await typeLine(console, 'run ping -q -i 0.004 10.78.0.1 >/dev/null &')
  const connection = await hosts.network.connect(hosts.client, guestAddress, 7070)
  let sums = 0
  let over = false
  const adding = (async () => {
    while (!over) {
      connection.received = ''
      connection.send('add 1\n')
      sums++
      expect(await connection.until((text) => text.endsWith('\n'), 60_000)).toBe(`ok ${sums} ${sums}\n`)
    }
  })()
  const lease = openSync(join(a.stateDirectory, 'guests', name, 'lease'), 'r')
  const silenced = () => {
    const word = Buffer.alloc(8)
    readSync(lease, word, 0, 8, 24)
    return word.readBigUInt64LE()
  }
  await client.protect(name, { to: `${b.reached}:7475` })
  await until(async () => (await b.guest(name))?.takeover)
  const [framesBefore, silencedBefore] = [await frames(), silenced()]
  expect(framesBefore).toBeGreaterThan(40)
  a.signal('SIGCONT')
  await until(async () => silenced() > silencedBefore)
  // It learns that it was superseded, and becomes the standby of the other.
  await until(async () => (await a.guest(name))?.role === 'Standby')
  expect(await frames()).toBe(framesBefore)
  over = true
  await adding
  expect(connection.ended).toBe(undefined)
  connection.close()
  closeSync(lease)
})
