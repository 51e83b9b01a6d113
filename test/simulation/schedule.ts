/**
 * A schedule: everything that goes wrong in one simulation, drawn from its seed, and then what must be true again when
 * nothing goes wrong any more.
 */
import { grains } from '../../src/delta/capture.ts'
import { asSubpageError } from '../../src/errors.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { type FaultPoint, faultPoints } from '../../src/replication/fault.ts'
import { type PauseLimits, pauseLimits } from '../../src/replication/pause-limits.ts'
import type { ProtectionSettings } from '../../src/replication/protection-settings.ts'
import type { Sending } from '../../src/replication/sending.ts'
import type { Verification } from '../../src/replication/verifier.ts'
import type { HotPageCosts } from '../../src/tracking/hot-pages.ts'
import { type SeededRandom, seededRandom } from '../support/random.ts'
import { Violation } from './sim-client.ts'
import type { SimHost } from './sim-host.ts'
import { type Broken, type PlannedFault, type SimSettings, SimWorld } from './sim-world.ts'

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
const settleMsMax = 90_000

/** Drawn apart from everything else, so that what a seed stands for stays the same. */
function sendingOf(seed: number, tracker: string): Sending {
  const { integer } = seededRandom(seed ^ 0x5eed)
  const pick = <T>(of: readonly T[]) => of[integer(0, of.length - 1)]!
  return {
    reduce: pick([[], ['dictionary'], ['sharing', 'similar'], ['dictionary', 'sharing', 'similar']]),
    blockBytes: pick([64, 1024]),
    compress: pick(['off', 'lz4', 'zstd']),
    speculate: pick(['off', 'auto', 'always']),
    ...shadowOf(pick, tracker),
  }
}

/** Drawn apart, too. */
function limitsOf(seed: number): PauseLimits {
  const { integer } = seededRandom(seed ^ 0x11317)
  return integer(0, 2) === 0 ? { ...pauseLimits, wholePages: integer(0, 4) } : pauseLimits
}

/** Eager, so that few epochs are enough; some leave cold pages between two hot ones, too. */
function hotPagesOf(seed: number): HotPageCosts | undefined {
  const { integer } = seededRandom(seed ^ 0x407)
  return integer(0, 3) === 0 ? undefined : { faultNs: 1000, compareNs: 100, runNs: integer(0, 1) * 150 }
}

function shadowOf(pick: <T>(of: readonly T[]) => T, tracker: string): Sending {
  const kind = pick(['full', 'cache', 'hash'])
  // Not with a tracker that names every page.
  if (kind === 'cache' && tracker !== 'compare')
    return { shadow: { cacheBytes: pick([1, 3, 64]) * pageBytes } }
  return kind === 'hash' ? { shadow: 'hash', grainBytes: pick(grains) } : {}
}

function settingsOf(random: SeededRandom): SimSettings {
  const chance = (percent: number) => random.integer(1, 100) <= percent
  const pick = <T>(of: readonly T[]) => of[random.integer(0, of.length - 1)]!
  const settings: Omit<SimSettings, 'sending' | 'limits' | 'hotPages' | 'apart'> = {
    pages: random.integer(4, 14),
    stepMs: pick([4, 8, 15]),
    epochMs: pick([25, 40, 100]),
    pauseShareMax: chance(20) ? 0.3 : undefined,
    suspicionMs: pick([100, 250, 500]),
    outputs: chance(8) ? 'free' : 'held',
    chosen: !chance(10),
    sameMachine: chance(10),
    tracker: chance(15) ? 'compare' : 'userfault',
    codec: pick(['line', 'line', 'page', 'xor-rle', 'masked']),
  }
  return {
    ...settings,
    sending: sendingOf(random.seed, settings.tracker),
    limits: limitsOf(random.seed),
    hotPages: hotPagesOf(random.seed),
    apart: random.seed % 2 === 1,
  }
}

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
    epochs: run.epochs,
    takeovers: world.takeovers,
    packets: world.client.packets,
    hotPages: world.hotPages,
    simulatedMs: world.time.nowMs,
    lost: run.lost,
  }
}

class Schedule {
  readonly #world: SimWorld
  readonly #random: SeededRandom
  #over = false
  lost = false
  epochs = 0
  /** Something that ends a copy of the guest has happened. */
  #deaths = 0
  /** The pair was whole when a copy died, and nothing else went wrong until the other one ran. */
  #mustSurvive = false
  /** The arbiter has lost its memory. */
  #forgotten = false

  constructor(world: SimWorld) {
    this.#world = world
    this.#random = world.random
  }

  async play(): Promise<void> {
    const world = this.#world
    const [a, b] = world.hosts as [SimHost, SimHost]
    a.startSupervisor()
    b.startSupervisor()
    a.supervisor!.run()
    this.#command('protect', a, (supervisor) => supervisor.protect(this.#protection('b')))
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
      void this.#settle().then(
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
      this.#mustSurvive = false
      qemu.stop()
      time.after(forMs, () => qemu.goOn())
    })
    this.#world.onFenced = () => {
      this.#world.note('-- it hangs for too long')
      this.#died(this.#whole(true))
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
      this.#mustSurvive = false
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
      this.#mustSurvive = false
      this.#forgotten = true
      this.#world.note('-- the arbiter is restored')
      arbiter.restore()
    })
  }

  /** An orderly shutdown of a host, or of its supervisor only: the supervisor is stopped, then QEMU dies, or the supervisor is back first. */
  #shutDown(host: SimHost, forMs: number, deathMs: number): void {
    const { time } = this.#world
    const wasWhole = this.#whole()
    this.#mustSurvive = false
    this.#world.note(`-- shutdown ${host.name}, its supervisor for ${forMs} ms, its QEMUs in ${deathMs} ms`)
    const runs = this.#world.copies.find((qemu) => qemu.host === host.name)
    if (runs) this.#died(wasWhole)
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
    const wasWhole = this.#whole()
    this.#mustSurvive = false
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
        if (victim.hasGuest) this.#died(wasWhole)
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
        if (this.#world.copies.some((qemu) => qemu.host === host.name)) this.#died(wasWhole)
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
        this.#operate(host)
        return
    }
  }

  #operate(host: SimHost): void {
    const other = this.#world.hosts.find((one) => one !== host)!
    switch (this.#pick(['switchover', 'switchover', 'failover', 'unprotect', 'protect', 'remove'])) {
      case 'switchover':
        this.#command('switchover', host, (supervisor) => supervisor.switchover())
        return
      case 'failover':
        this.#command('failover', host, (supervisor) => supervisor.failover(false))
        return
      case 'unprotect':
        this.#command('unprotect', host, (supervisor) => supervisor.unprotect())
        return
      case 'protect':
        this.#command('protect', host, (supervisor) => supervisor.protect(this.#protection(other.name)))
        return
      case 'remove':
        if (this.#draw(0, 9) > 0 && host.supervisor?.hosted?.kind === 'running') return
        this.#command('remove', host, (supervisor) => supervisor.remove())
        return
    }
  }

  #command(
    name: string,
    host: SimHost,
    run: (supervisor: NonNullable<SimHost['supervisor']>) => Promise<void>,
  ): void {
    const { supervisor } = host
    supervisor?.process.enter(() => {
      this.#world.note(`-- command ${name} on ${host.name}`)
      if (name === 'switchover' || name === 'failover') this.#world.commanded = true
      const work = async () => await run(supervisor)
      work().then(
        () => supervisor.say(`${name} is done`),
        (error) => {
          supervisor.say(`${name}: ${asSubpageError(error).message}`)
          this.#world.unexpected(asSubpageError(error), supervisor)
        },
      )
    })
  }

  #protection(to: string): ProtectionSettings {
    const { epochMs, pauseShareMax, suspicionMs, outputs, tracker, codec, sending } = this.#world.settings
    return {
      to,
      epochMs,
      ...(pauseShareMax !== undefined && { pauseShareMax }),
      suspicionMs,
      outputs,
      tracker,
      codec,
      ...(!this.#world.broken.plain && sending),
    }
  }

  // ---- what must be true

  /** Protected, with everybody at work. */
  #whole(hung = false): boolean {
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
      !this.#forgotten &&
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

  #died(wasWhole: boolean): void {
    this.#deaths++
    this.#mustSurvive = wasWhole
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

  /** Exactly one copy, which serves, and is protected again. */
  async #settle(): Promise<void> {
    const world = this.#world
    const sleep = (ms: number) => new Promise<void>((resolve) => world.time.after(ms, resolve))
    const until = world.time.nowMs + settleMsMax
    const seenBefore = world.client.packets
    let missing = 0
    while (world.time.nowMs < until) {
      await sleep(40)
      const { copies } = world
      if (copies.length === 0) {
        if (++missing % 50 === 0) this.#help()
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
        await this.#protectAgain(host)
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

  /** People come to see after it. */
  #help(): void {
    const { settings } = this.#world
    if (settings.chosen && settings.outputs === 'held') return
    for (const host of this.#world.hosts)
      if (host.supervisor?.hosted?.kind === 'standby' && this.#world.copies.length === 0) {
        this.#world.forced = true
        this.#command('failover --force', host, (supervisor) => supervisor.failover(true))
      }
  }

  async #protectAgain(host: SimHost): Promise<void> {
    const to = host.name === 'a' ? 'b' : 'a'
    this.#command('protect', host, (supervisor) => supervisor.protect(this.#protection(to)))
    await new Promise<void>((resolve) => this.#world.time.after(1_000, resolve))
  }

  #judge({ equal, difference }: Verification): void {
    if (!equal) throw new Violation(`guest and image differ: ${JSON.stringify(difference)}`)
    if (this.#world.copies.length > 1) throw new Violation('two copies run')
  }

  #judgeLoss(): void {
    this.lost = true
    if (this.#world.removed) return
    if (this.#mustSurvive) throw new Violation('the guest died, was protected, and nobody took it over')
    if (this.#deaths === 0 && !this.#world.hitMidway)
      throw new Violation('the guest is gone, and nothing has killed it')
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
