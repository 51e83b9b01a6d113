/**
 * A schedule: everything that goes wrong in one simulation, drawn from its seed, and then what must be true again when
 * nothing goes wrong any more.
 */

import { type FaultPoint, faultPoints } from '../../src/replication/fault.ts'
import { type SeededRandom, seededRandom } from '../support/random.ts'
import { settingsOf } from './drawn-settings.ts'
import { Operator } from './operator.ts'
import { Violation } from './sim-client.ts'
import type { SimHost } from './sim-host.ts'
import { type Broken, type PlannedFault, SimWorld } from './sim-world.ts'
import { Verdict } from './verdict.ts'

export interface Result {
  seed: number
  failure: Error | undefined
  log: string[]
  events: number
  epochs: number
  takeovers: number
  packets: number
  /** Pages that were left unarmed, over all harvests. */
  hotPages: number
  simulatedMs: number
  /** The guest is gone for a reason that counts. */
  lost: boolean
}

/** Real time that one simulation may take before it counts as one that never ends. */
const eventsMax = 400_000

export async function simulate(seed: number, broken: Broken = {}): Promise<Result> {
  const world = new SimWorld(seed, settingsOf, broken)
  const run = new Schedule(world)
  let failure: Error | undefined
  try {
    await run.play()
  } catch (error) {
    failure = error instanceof Error ? error : new Error(String(error))
  }
  for (const host of world.hosts) host.crashSupervisor()
  for (const qemu of world.qemus) qemu.ram.close()
  return {
    seed,
    failure: failure ?? world.failure,
    log: [`settings ${JSON.stringify(world.settings)}`, ...world.log],
    events: world.time.count,
    epochs: run.verdict.epochs,
    takeovers: world.takeovers,
    packets: world.client.packets,
    hotPages: world.hotPages,
    simulatedMs: world.time.nowMs,
    lost: run.verdict.lost,
  }
}

class Schedule {
  readonly #world: SimWorld
  readonly #random: SeededRandom
  readonly #operator: Operator
  readonly verdict: Verdict
  #over = false

  constructor(world: SimWorld) {
    this.#world = world
    this.#random = world.random
    this.#operator = new Operator(world)
    this.verdict = new Verdict(world, this.#operator)
  }

  async play(): Promise<void> {
    const world = this.#world
    const [a, b] = world.hosts as [SimHost, SimHost]
    a.startSupervisor()
    b.startSupervisor()
    a.supervisor!.run()
    this.#operator.protect(a)
    this.#plan()
    const faultsMs = this.#draw(300, 3_000)
    for (let left = this.#draw(1, 9); left > 0; left--)
      world.time.after(this.#draw(20, faultsMs), () => this.#disturb())
    this.#disturbMore(faultsMs)
    this.#hang(faultsMs)
    world.broken.disturb?.(world)
    this.#mislead(faultsMs)
    this.#forget(faultsMs)
    // Bad luck comes in twos: a state that must not last is seen when something else happens right then.
    world.onFault = (host, forMs) => {
      if (this.#draw(0, 1) === 0) return
      const kind = this.#pick(['host-death', 'host-death', 'qemu-death', 'cut', 'crash'] as const)
      world.time.after(forMs + this.#draw(1, world.settings.epochMs), () => this.#disturb(kind, host))
    }
    let done = false
    world.time.after(faultsMs + 50, () => {
      this.#heal()
      void this.verdict.settle().then(
        () => {
          done = true
        },
        (error) => world.fail(error),
      )
    })
    await world.time.run(() => {
      if (world.failure) throw world.failure
      if (world.time.count > eventsMax) throw new Violation('it does not come to an end')
      return done
    })
    if (!done) throw new Violation('nothing happens any more, and it is not settled')
  }

  // ---- what goes wrong

  #plan(): void {
    for (let left = Math.max(0, this.#draw(-1, 3)); left > 0; left--)
      this.#world.planned.push({
        host: this.#pick(['a', 'b']),
        point: this.#pick(faultPoints) as FaultPoint,
        passingsLeft: this.#draw(1, 25),
        action: this.#pick<PlannedFault['action']>(['kill', 'kill', 'stop', 'throw', 'stall']),
        forMs: this.#duration(),
      })
  }

  /** Kinds that came later, drawn apart from everything else, so that what a seed stands for stays the same. */
  #disturbMore(faultsMs: number): void {
    const { time, seed, hosts } = this.#world
    const { integer } = seededRandom(seed ^ 0xd15c)
    if (integer(0, 3) > 0) return
    const [host, forMs, deathMs] = [hosts[integer(0, 1)]!, integer(1, 9_000), integer(0, 7_000)]
    time.after(integer(20, faultsMs), () => !this.#over && this.#shutDown(host, forMs, deathMs))
  }

  /** A QEMU stands still, for longer than its supervisor bears or not, also when nothing else goes wrong any more. */
  #hang(faultsMs: number): void {
    const { time, seed } = this.#world
    const { integer } = seededRandom(seed ^ 0x4a46)
    if (this.#world.broken.plain || integer(0, 3) > 0) return
    const forMs = integer(1, 20_000)
    time.after(integer(20, faultsMs), () => {
      const [qemu] = this.#world.copies
      if (this.#over || !qemu) return
      this.#world.note(`-- QEMU of ${qemu.host} hangs for ${forMs} ms`)
      this.verdict.mustSurvive = false
      qemu.stop()
      time.after(forMs, () => qemu.goOn())
    })
    this.#world.onFenced = () => {
      this.#world.note('-- it hangs for too long')
      this.verdict.died(this.verdict.whole(true))
    }
  }

  /** The address of the standby comes to lead back to the primary's own host. */
  #mislead(faultsMs: number): void {
    const { time, seed, hosts, network } = this.#world
    const { integer } = seededRandom(seed ^ 0xadd7)
    if (this.#world.broken.plain || integer(0, 5) > 0) return
    const [host, forMs, cuts] = [hosts[integer(0, 1)]!, integer(1, 4_000), integer(0, 1) === 1]
    time.after(integer(20, faultsMs), () => {
      if (this.#over) return
      this.verdict.mustSurvive = false
      this.#world.note(`-- ${host.name} reaches itself for ${forMs} ms`)
      network.misled.set(host, host)
      if (cuts) network.reset('both')
      time.after(forMs, () => network.misled.delete(host))
    })
  }

  /** The arbiter is restored from a backup, or set up anew. */
  #forget(faultsMs: number): void {
    const { time, seed, arbiter } = this.#world
    const { integer } = seededRandom(seed ^ 0xf026)
    if (this.#world.broken.plain || integer(0, 4) > 0) return
    const [backupMs, restoreMs] = [integer(0, faultsMs), integer(20, faultsMs)]
    if (integer(0, 2) > 0) time.after(backupMs, () => !this.#over && arbiter.backUp())
    time.after(Math.max(backupMs + 1, restoreMs), () => {
      if (this.#over) return
      this.verdict.mustSurvive = false
      this.verdict.forgotten = true
      this.#world.note('-- the arbiter is restored')
      arbiter.restore()
    })
  }

  /** An orderly shutdown of a host, or of its supervisor only: the supervisor is stopped, then QEMU dies, or the supervisor is back first. */
  #shutDown(host: SimHost, forMs: number, deathMs: number): void {
    const { time } = this.#world
    const wasWhole = this.verdict.whole()
    this.verdict.mustSurvive = false
    this.#world.note(`-- shutdown ${host.name}, its supervisor for ${forMs} ms, its QEMUs in ${deathMs} ms`)
    const runs = this.#world.copies.find((qemu) => qemu.host === host.name)
    if (runs) this.verdict.died(wasWhole)
    host.supervisor?.process.enter(() => void host.endSupervisor(forMs))
    time.after(deathMs, () => {
      if (this.#over || !runs?.alive) return
      this.#world.hit(runs.host)
      runs.die({ how: 'died', detail: 'its host was shut down' })
    })
  }

  #disturb(
    kind: (typeof disturbances)[number] = this.#pick(disturbances),
    host: SimHost = this.#pick(this.#world.hosts),
  ): void {
    const { network, time } = this.#world
    const forMs = this.#duration()
    if (this.#over) return
    const wasWhole = this.verdict.whole()
    this.verdict.mustSurvive = false
    this.#world.note(`-- ${kind} ${host.name} ${forMs} ms`)
    const later = (run: () => void) => time.after(forMs, () => !this.#over && run())
    switch (kind) {
      case 'cut':
        network.cut()
        later(() => this.#note('-- healed', () => network.heal()))
        return
      case 'slow':
        network.bytesPerMs = this.#pick([2, 20, 100])
        later(() => {
          network.bytesPerMs = 1e6
        })
        return
      case 'delay':
        network.delayMs = [this.#draw(0, 30), this.#draw(30, 400)]
        later(() => {
          network.delayMs = [0.2, 1]
        })
        return
      case 'late-connect':
        network.connectDelayMs = this.#draw(100, 2_000)
        later(() => {
          network.connectDelayMs = 0
        })
        return
      case 'reset':
        network.reset(this.#pick(['both', 'one']))
        return
      case 'hurt':
        network.hurt(this.#pick(['truncate', 'damage']))
        return
      case 'replay':
        network.replay()
        return
      case 'crash':
        host.crashSupervisor()
        time.after(forMs, () => this.#note(`-- supervisor ${host.name} starts`, () => host.startSupervisor()))
        return
      case 'end':
        host.supervisor?.process.enter(() => void host.endSupervisor(forMs))
        return
      case 'stop': {
        const { supervisor } = host
        supervisor?.process.stop()
        time.after(forMs, () =>
          this.#note(`-- supervisor ${host.name} goes on`, () => supervisor?.process.goOn()),
        )
        return
      }
      case 'host-stop': {
        const { supervisor } = host
        const stopped = this.#world.qemus.filter((qemu) => qemu.alive && qemu.host === host.name)
        const wake = () => {
          for (const qemu of stopped) qemu.goOn()
        }
        const goOn = [() => supervisor?.process.goOn(), wake]
        if (this.#draw(0, 1)) goOn.reverse()
        supervisor?.process.stop()
        for (const qemu of stopped) qemu.stop()
        time.after(forMs, () => this.#note(`-- host ${host.name} goes on`, () => goOn[0]!()))
        time.after(forMs + this.#draw(0, 3), () => goOn[1]!())
        time.after(forMs, () => this.#over && goOn[0]!())
        return
      }
      case 'qemu-death': {
        const copies = this.#world.qemus.filter((qemu) => qemu.alive)
        if (copies.length === 0) return
        const victim = copies.find((qemu) => qemu.host === host.name) ?? copies[0]!
        if (victim.hasGuest) this.verdict.died(wasWhole)
        this.#world.hit(victim.host)
        victim.die({ how: 'died', detail: 'killed' })
        return
      }
      case 'power-off':
        // Rare: it ends everything.
        if (this.#draw(0, 9) > 0) return
        for (const qemu of this.#world.copies.slice(0, 1)) {
          this.#world.removed = true
          qemu.die({ how: 'powered-off', detail: 'it shut itself down' })
        }
        return
      case 'host-death':
        if (this.#world.settings.sameMachine) return
        if (this.#world.copies.some((qemu) => qemu.host === host.name)) this.verdict.died(wasWhole)
        host.loseEverything()
        time.after(forMs, () => this.#note(`-- host ${host.name} is back`, () => host.comeBack()))
        return
      case 'arbiter-outage': {
        const { arbiter } = this.#world
        const cut = this.#draw(0, 2)
        if (cut !== 1) arbiter.cutOff.add('a')
        if (cut !== 0) arbiter.cutOff.add('b')
        later(() => arbiter.cutOff.clear())
        return
      }
      case 'arbiter-trouble': {
        const { arbiter } = this.#world
        arbiter.lostAnswers = this.#draw(0, 60)
        arbiter.slowMs = this.#pick([3, 500, 6_000])
        later(() => this.#calm())
        return
      }
      case 'command':
        this.#operator.operate(host)
        return
    }
  }

  #calm(): void {
    const { arbiter } = this.#world
    arbiter.cutOff.clear()
    arbiter.lostAnswers = 0
    arbiter.slowMs = 3
  }

  #heal(): void {
    const { network, hosts } = this.#world
    this.#over = true
    this.#world.note('-- everything is well again')
    this.#world.planned.length = 0
    Object.assign(network, { delayMs: [0.2, 1], bytesPerMs: 1e6, connectDelayMs: 0 })
    network.heal()
    network.misled.clear()
    this.#calm()
    for (const host of hosts) {
      host.comeBack()
      host.startSupervisor()
      host.supervisor?.process.goOn()
    }
  }

  // ---- chance

  #draw(least: number, most: number): number {
    return this.#random.integer(least, most)
  }

  #pick<T>(of: readonly T[]): T {
    return of[this.#draw(0, of.length - 1)]!
  }

  /** From milliseconds to seconds, short ones as likely as long ones. */
  #duration(): number {
    return Math.round(2 ** (this.#draw(0, 118) / 10))
  }

  #note(text: string, run: () => void): void {
    if (this.#over) return
    this.#world.note(text)
    run()
  }
}

const disturbances = [
  'cut',
  'cut',
  'cut',
  'slow',
  'delay',
  'late-connect',
  'reset',
  'hurt',
  'replay',
  'crash',
  'crash',
  'end',
  'stop',
  'stop',
  'host-stop',
  'qemu-death',
  'power-off',
  'host-death',
  'arbiter-outage',
  'arbiter-trouble',
  'command',
  'command',
] as const
