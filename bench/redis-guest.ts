/**
 * A redis guest behind a bridge for benchmarks: two hosts and the bridge are in one namespace, the client is in another.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { EphemeralAgent } from '../src/agent/ephemeral-agent.ts'
import { packageRoot } from '../src/memory/native.ts'
import { consoleAt, demoGuestOptions, untilConsole } from '../src/qemu/demo-guest.ts'
import { Hosts } from '../test/support/hosts.ts'
import { TestNetwork } from '../test/support/network.ts'
import type { Latency } from './redis-load.ts'

const runFile = promisify(execFile)
const guestAddress = '10.79.0.2'
const redisPort = 6379
export const redisGuest = 'redis'

export class RedisGuest implements AsyncDisposable {
  readonly #network: TestNetwork
  readonly #hosts: Hosts
  readonly #client: string
  readonly a: EphemeralAgent
  readonly b: EphemeralAgent

  private constructor(network: TestNetwork, hosts: Hosts, client: string) {
    this.#network = network
    this.#hosts = hosts
    this.#client = client
    const [a, b] = hosts.agents
    this.a = a!
    this.b = b!
  }

  /** Runs on `a`, and answers. */
  static async start(): Promise<RedisGuest> {
    const network = await TestNetwork.make()
    const hosts = new Hosts()
    const place = await network.namespace()
    for (const name of ['a', 'b']) await hosts.add(name, {}, undefined, ['ip', 'netns', 'exec', place])
    const guest = new RedisGuest(network, hosts, await network.namespace())
    try {
      await guest.#run(place)
      return guest
    } catch (error) {
      await guest[Symbol.asyncDispose]()
      throw error
    }
  }

  async #run(place: string): Promise<void> {
    const { console } = await this.a.client.run({
      name: redisGuest,
      ramBytes: 512 * 2 ** 20,
      accel: 'tcg',
      options: demoGuestOptions(['workload=redis', `net=${guestAddress}/24`], 'initrd-workloads.gz'),
      nics: [{ bridge: 'br0' }],
    })
    await this.#network.attach(this.#client, '10.79.0.1/24', 'br0', place)
    // Redis says nothing on the console: a connection tells.
    await untilConsole(
      consoleAt(console),
      0,
      (text) => text.includes('subpage-guest: ready') || undefined,
      120_000,
    )
    for (let left = 100; ; left--) {
      try {
        const connection = await this.#network.connect(this.#client, guestAddress, redisPort)
        return connection.close()
      } catch (error) {
        if (left === 0) throw error
      }
      await delay(100)
    }
  }

  /** Microseconds, of one request at a time. */
  latency = (seconds: number): Promise<Latency> => this.#load('latency', seconds)

  /** Requests per second of several connections that never wait. */
  throughput = async (seconds: number): Promise<number> => (await this.#load('throughput', seconds)).perSecond

  async #load(mode: 'latency' | 'throughput', seconds: number) {
    const program = join(packageRoot, 'dist/bench/redis-load.js')
    const args = [program, guestAddress, String(redisPort), mode, String(seconds)]
    const { stdout } = await runFile('ip', ['netns', 'exec', this.#client, process.execPath, ...args])
    return JSON.parse(stdout)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#hosts[Symbol.asyncDispose]()
    await this.#network[Symbol.asyncDispose]()
  }
}
