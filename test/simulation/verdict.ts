/** What must be true of a simulated pair, while things go wrong and once nothing does any more. */
import type { Verification } from '../../src/replication/verifier.ts'
import type { Operator } from './operator.ts'
import { Violation } from './sim-client.ts'
import type { SimWorld } from './sim-world.ts'

const settleMsMax = 90_000

export class Verdict {
  readonly #world: SimWorld
  readonly #operator: Operator
  /** Something that ends a copy of the guest has happened. */
  #deaths = 0
  /** The pair was whole when a copy died, and nothing else went wrong until the other one ran. */
  mustSurvive = false
  /** The arbiter has lost its memory. */
  forgotten = false
  lost = false
  epochs = 0

  constructor(world: SimWorld, operator: Operator) {
    this.#world = world
    this.#operator = operator
  }

  /** Protected, with everybody at work. */
  whole(hung = false): boolean {
    const { network, hosts, arbiter, settings } = this.#world
    const running = hosts
      .map(({ supervisor }) => supervisor?.hosted)
      .find((hosted) => hosted?.kind === 'running')
    const standby = hosts
      .map(({ supervisor }) => supervisor?.hosted)
      .find((hosted) => hosted?.kind === 'standby')
    return (
      settings.chosen &&
      // It decides nothing before the hosts have met again.
      !this.forgotten &&
      settings.outputs === 'held' &&
      network.up &&
      network.delayMs[1] < 5 &&
      network.bytesPerMs > 1000 &&
      arbiter.cutOff.size === 0 &&
      arbiter.lostAnswers === 0 &&
      arbiter.slowMs < 10 &&
      hosts.every(({ supervisor }) => supervisor?.process.state === 'running') &&
      this.#world.planned.every(({ passingsLeft }) => passingsLeft <= 0) &&
      running?.kind === 'running' &&
      (hung ? running.primary?.covered === true : running.primary?.state === 'Protected') &&
      standby?.kind === 'standby' &&
      standby.standby.state === 'Protected' &&
      !standby.standby.ending &&
      !running.succession.undecided
    )
  }

  /** @param wasWhole the pair was whole right before */
  died(wasWhole: boolean): void {
    this.#deaths++
    this.mustSurvive = wasWhole
  }

  /** Exactly one copy, which serves, and is protected again. */
  async settle(): Promise<void> {
    const world = this.#world
    const sleep = (ms: number) => new Promise<void>((resolve) => world.time.after(ms, resolve))
    const until = world.time.nowMs + settleMsMax
    const seenBefore = world.client.packets
    let missing = 0
    while (world.time.nowMs < until) {
      await sleep(40)
      const { copies } = world
      if (copies.length === 0) {
        if (++missing % 50 === 0) this.#operator.help()
        if (missing > 250) return this.#judgeLoss()
        continue
      }
      missing = 0
      if (copies.length !== 1) continue
      const host = world.host(copies[0]!.host)
      const hosted = host.supervisor?.hosted
      if (hosted?.kind !== 'running' || hosted.qemu.qemu !== copies[0]) continue
      const { primary } = hosted
      if (!primary) {
        this.#operator.protect(host)
        await sleep(1_000)
        continue
      }
      if (primary.state !== 'Protected' || world.client.packets === seenBefore) continue
      this.epochs = primary.stats.summary(0).checkpoints
      const verified = await Promise.race([
        primary.verify().catch((error) => error as Error),
        sleep(5_000).then(() => new Error('no answer')),
      ])
      if (verified instanceof Error) continue
      return this.#judge(verified)
    }
    const copies = world.copies.map(({ host, status }) => `${host} ${status}`)
    const states = world.hosts.map(({ name, supervisor }) => {
      const hosted = supervisor?.hosted
      if (hosted?.kind === 'running') return `${name} running, ${hosted.primary?.state}`
      return `${name} ${hosted?.kind === 'standby' ? `standby ${hosted.standby.state}` : hosted?.kind}`
    })
    throw new Violation(`not settled: copies ${copies.join(', ')}; ${states.join('; ')}`)
  }

  #judge({ equal, difference }: Verification): void {
    if (!equal) throw new Violation(`guest and image differ: ${JSON.stringify(difference)}`)
    if (this.#world.copies.length > 1) throw new Violation('two copies run')
  }

  #judgeLoss(): void {
    this.lost = true
    if (this.#world.removed) return
    if (this.mustSurvive) throw new Violation('the guest died, was protected, and nobody took it over')
    if (this.#deaths === 0 && !this.#world.hitMidway)
      throw new Violation('the guest is gone, and nothing has killed it')
  }
}
