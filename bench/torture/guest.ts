/** A guest of the torture: started, protected, healed, and looked for. */
import { setTimeout as delay } from 'node:timers/promises'
import type { GuestStatus } from '../../src/agent/status.ts'
import {
  consoleAt,
  demoGuestOptions,
  recordsIn,
  typeLine,
  untilConsole,
  victimLines,
} from '../../src/qemu/demo-guest.ts'
import { identify, isRunning } from '../../src/qemu/process.ts'
import type { TestHost, TwoHosts } from '../../test/support/two-hosts.ts'
import { type Client, diskBytes, diskRecords, victimArguments } from './witnesses.ts'

const ramBytes = 160 * 2 ** 20
/** Everything is whole again within this time after a fault, or the run has failed. */
export const healMs = 45_000
const answerMsMax = 120_000
const addsAfter = 20

/** An agent may not have noticed yet that its guest has died. */
export const runsHere = (status: GuestStatus | undefined): boolean =>
  status !== undefined && status.role !== 'Standby' && alive(status.pid)

function alive(pid: number | null): boolean {
  const identity = pid === null ? undefined : identify(pid)
  return identity !== undefined && isRunning(identity)
}

export class TorturedGuest {
  readonly name: string
  /** On the guests' network, 10.78.0.0/24. */
  readonly address: string
  readonly #recordPauseS: number

  /** @param recordPauseS between two records on its disk: guests that share a core leave something of it to the others */
  constructor(name: string, address: string, recordPauseS = 0) {
    this.name = name
    this.address = address
    this.#recordPauseS = recordPauseS
  }

  async runsOn(host: TestHost, limitMs = healMs): Promise<void> {
    const deadline = performance.now() + limitMs
    while (!runsHere(await host.guest(this.name))) {
      if (performance.now() > deadline) throw new Error(`the guest does not run on ${host.name}`)
      await delay(20)
    }
  }

  /** Waits until the guest runs on one of the hosts and is protected to the other. */
  async whole(x: TestHost, y: TestHost, deadline: number): Promise<[TestHost, TestHost, GuestStatus]> {
    for (;;) {
      const [atX, atY] = await Promise.all([x.guest(this.name), y.guest(this.name)])
      for (const [from, to, here, there] of [
        [x, y, atX, atY],
        [y, x, atY, atX],
      ] as const)
        if (
          here?.role === 'Primary' &&
          here.state === 'Protected' &&
          runsHere(here) &&
          there?.role === 'Standby' &&
          there.state === 'Protected' &&
          alive(there.pid)
        )
          return [from, to, here]
      if (performance.now() > deadline) {
        const words = [atX, atY].map((s) => (s ? `${s.role} ${s.state} ${s.reason}` : 'unknown'))
        throw new Error(`not whole: ${x.name} ${words[0]}; ${y.name} ${words[1]}`)
      }
      await delay(20)
    }
  }

  /**
   * Compares guest and image where the guest runs once it has settled: a cut link may be suspected only after the pair has
   * looked whole again. An agent that still has a fault in it may stumble between.
   */
  async verified(from: TestHost, to: TestHost, client: Client) {
    const deadline = performance.now() + 20_000
    for (;;) {
      const [owner, , status] = await this.whole(from, to, performance.now() + healMs)
      const target = client.adds + addsAfter
      const answersBy = performance.now() + answerMsMax
      while (client.adds < target && performance.now() < answersBy) await delay(10)
      const image = await owner.agent!.client.verify(this.name).catch((error: Error) => error)
      if (!(image instanceof Error) || performance.now() > deadline)
        return { owner, status, image, answered: client.adds >= target }
      await delay(200)
    }
  }

  async #boot(host: TestHost): Promise<void> {
    const options = demoGuestOptions(['workload=sum', `net=${this.address}/24`])
    const status = await host.agent!.client.run({
      name: this.name,
      ramBytes,
      accel: 'tcg',
      options,
      nics: [{ bridge: 'br0' }],
      disks: [{ bytes: diskBytes, name: 'data' }],
    })
    const console = consoleAt(status.console)
    const said = <T>(found: (text: string) => T | undefined) => untilConsole(console, 0, found, 120_000)
    await said((text) => text.includes('sum listening') || undefined)
    // Beside the sums, on the console's pipe for its commands.
    await typeLine(console, `run victim ${victimArguments.join(' ')} <>/run/commands &`)
    await said((text) => victimLines(text)[0])
    await typeLine(console, `run ${diskRecords(this.#recordPauseS)} &`)
    await said((text) => recordsIn(text)[0])
  }

  /** Whether a guest that was not whole in time becomes so after all. */
  async heals(x: TestHost, y: TestHost): Promise<boolean> {
    return await this.whole(x, y, performance.now() + healMs).then(
      () => true,
      () => false,
    )
  }

  /** The first, or another guest in place of the one that was lost. */
  async anew({ hosts: [a, b] }: TwoHosts): Promise<void> {
    for (const host of [a, b]) if (!host.running) await host.start()
    // One may know nothing of it any more; a standby is refused until its primary is gone.
    for (const host of [a, b, a]) await host.agent?.client.remove(this.name).catch(() => undefined)
    await this.#boot(a)
    await a.agent!.client.protect(this.name, { to: `${b.reached}:7475` })
  }
}
