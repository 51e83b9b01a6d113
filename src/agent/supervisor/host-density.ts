/**
 * Dense memory on this host: the keeper, the guests that it serves, running or waiting to take over, and the passes of the
 * clock over them, one guest after the other. A guest is dense from the moment that its record says so until every page is back.
 */
import { totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { pagesOf, runsOf } from '../../density/keeper.ts'
import { KeeperClient, type KeeperPlace, keeperTimes } from '../../density/keeper-client.ts'
import type { KeeperStatus } from '../../density/keeper-protocol.ts'
import { asSubpageError, SubpageError } from '../../errors.ts'
import type { DensitySettings, GuestRecord } from '../../qemu/guest-record.ts'
import { untilUnread } from '../../qemu/readers-lock.ts'
import { keeperDirectory, socketPath } from '../../qemu/state-path.ts'
import type { EventLog } from '../event-log.ts'
import { guarded } from './boundary.ts'
import { DenseGuest, type DenseOwner } from './dense-guest.ts'

const passMs = 1_000
/** What the sweep looks at in one pass; what has stayed for so many rounds is packed. */
const sweepObjects = 20_000
const packRounds = 2
const indexPages = 1 << 18
const restartMs = 200
/** Brought back at a time. */
const bringPages = 1 << 10

/** Where the coldest pages go, and for how long they must have stayed in the store before. */
export interface SwapPlace {
  file: string
  afterMs: number
}

export class HostDensity {
  readonly #place: KeeperPlace
  readonly #swapRounds: number
  readonly #events: EventLog
  readonly #guests = new Map<string, DenseGuest>()
  /** How images of guests are to be held, by the guest's id: whenever this host has one. */
  readonly #images = new Map<string, DensitySettings>()
  /** Those that the keeper of this moment does not serve, though it was asked to. */
  readonly #unattached = new WeakSet<DenseGuest>()
  #keeper: Promise<KeeperClient> | undefined
  #closing = new AbortController()
  #passes: Promise<void> | undefined
  /** Why the latest pass over a guest did not do what it wanted. */
  readonly #errors = new Map<string, string>()

  constructor(stateDirectory: string, events: EventLog, swap: SwapPlace | undefined) {
    const inState = (leaf: string) => join(resolve(stateDirectory), leaf)
    this.#place = {
      socket: socketPath(stateDirectory, 'keeper.sock'),
      log: inState('keeper.log'),
      keeper: {
        directory: keeperDirectory(stateDirectory),
        ...(swap === undefined ? {} : { swap: resolve(swap.file) }),
        pagesMax: pagesOf(totalmem()),
        indexPages,
      },
    }
    this.#events = events
    // A round takes a pass, and more when the store is large.
    this.#swapRounds = Math.max(1, Math.ceil((swap?.afterMs ?? 0) / passMs))
  }

  /** @throws SubpageError ALREADY_PROTECTED, KEEPER_FAILED, TRACKER_UNAVAILABLE, NO_SPACE */
  async enable(guest: DenseOwner, settings: DensitySettings): Promise<void> {
    if (guest.unmovable !== undefined)
      throw new SubpageError(
        'ALREADY_PROTECTED',
        `the memory of ${guest.name} cannot be held densely: ${guest.unmovable}`,
      )
    const { qemu } = guest
    const before = qemu.record.density
    if (before) {
      if (before.trustDomain !== settings.trustDomain)
        throw new SubpageError(
          'BAD_ARGUMENT',
          `${guest.name} stays in its trust domain: subpage density off ${guest.name} first`,
        )
      qemu.updateRecord({ density: settings })
      if (qemu.record.waiting) this.#images.set(qemu.record.id, settings)
      return
    }
    // Before anything can be stored: a supervisor after us must know.
    qemu.updateRecord({ density: settings })
    try {
      if (!(await untilUnread(qemu.files)))
        throw new SubpageError('BAD_ARGUMENT', `${guest.name} is being recorded: end that first`)
      await this.#attach(guest)
    } catch (error) {
      this.#guests.delete(qemu.record.id)
      const { density: _, ...record } = qemu.record
      qemu.replaceRecord(record)
      throw error
    }
    if (qemu.record.waiting) this.#images.set(qemu.record.id, settings)
    this.#events.add(guest.name, 'density', 'memory is held densely')
  }

  /** A new image: it becomes dense if that of the same guest was, which has been lost. */
  async again(image: DenseOwner): Promise<void> {
    const settings = this.#images.get(image.qemu.record.id)
    if (!settings) return
    await this.enable(image, settings).catch((error) => this.#say(image.name, asSubpageError(error).message))
  }

  /** An image that a former supervisor had: another one takes its place. */
  remember({ id, density }: GuestRecord): void {
    if (density) this.expect(id, density)
  }

  /** An image of this guest is to be held so, whenever there is one. */
  expect(id: string, settings: DensitySettings): void {
    this.#images.set(id, settings)
  }

  /** Of a guest that a former supervisor has left dense, or that was a dense image until now. */
  resume(guest: DenseOwner): void {
    const { id } = guest.qemu.record
    const former = this.#guests.get(id)
    guarded({ events: this.#events, guest: guest.name, doing: 'holding its memory densely' }, () =>
      former?.leave(),
    )
    this.#guests.set(id, new DenseGuest(guest, former?.owner.hotMap))
    void this.keeper().catch((error) =>
      this.#say(guest.name, `cannot go on: ${asSubpageError(error).message}`),
    )
  }

  /** Brings every page back. @throws SubpageError NO_SPACE when there is no room for them, KEEPER_FAILED */
  async disable(guest: DenseOwner): Promise<void> {
    await this.#end(guest)
    this.#images.delete(guest.qemu.record.id)
  }

  async #end(guest: DenseOwner): Promise<void> {
    const { qemu } = guest
    const dense = this.#guests.get(qemu.record.id)
    if (!dense) throw new SubpageError('BAD_ARGUMENT', `the memory of ${guest.name} is not held densely`)
    await dense.leave()
    try {
      const keeper = await this.keeper()
      await guest.becomeWhole(async () => void (await keeper.ask('detach', { id: dense.id })))
    } catch (error) {
      dense.stay()
      throw error
    }
    this.#guests.delete(dense.id)
    this.#errors.delete(dense.id)
    const { density: _, ...record } = qemu.record
    qemu.replaceRecord(record)
    this.#events.add(guest.name, 'density', 'every page is back in memory')
  }

  /**
   * Brings every page back while the guest runs, those first that were used last, and tries until there is room.
   * @returns whether it is whole; else the guest or this supervisor has ended before
   */
  async bringBack(guest: DenseOwner): Promise<boolean> {
    const { signal } = this.#closing
    const dense = this.#guests.get(guest.qemu.record.id)
    while (dense && this.#guests.get(dense.id) === dense && !signal.aborted)
      try {
        await dense.leave()
        const keeper = await this.keeper()
        for (const part of dense.hottestFirst(bringPages))
          await keeper.ask('fetch', { id: dense.id, runs: runsOf(part) })
        await this.#end(guest)
      } catch (thrown) {
        this.#failed(dense, thrown)
        // Woken by the end.
        await delay(passMs, undefined, { signal }).catch(() => undefined)
      }
    return guest.qemu.record.density === undefined
  }

  /** The guest has ended. */
  async forget(guest: DenseOwner): Promise<void> {
    const dense = this.#guests.get(guest.qemu.record.id)
    if (dense?.owner.qemu !== guest.qemu) return
    this.#guests.delete(dense.id)
    this.#errors.delete(dense.id)
    await dense.leave()
    // A keeper that cannot be asked, or never came, finds out by itself.
    await this.#keeper?.then((keeper) => keeper.ask('forget', { id: dense.id })).catch(() => undefined)
  }

  /** Undefined while no guest is dense. @throws SubpageError KEEPER_FAILED */
  async status(): Promise<(KeeperStatus & { error: string }) | undefined> {
    if (this.#guests.size === 0) return undefined
    return {
      ...(await (await this.keeper()).ask('status', {})),
      error: [...new Set(this.#errors.values())].join('; '),
    }
  }

  /** Guests stay dense, and the keeper serves them on. */
  async close(): Promise<void> {
    this.#closing.abort()
    await Promise.all([...this.#guests.values()].map((dense) => dense.leave()))
    await this.#passes
    // It cannot be let go of when it never came.
    const keeper = await this.#keeper?.catch(() => undefined)
    keeper?.close()
  }

  async #attach(guest: DenseOwner): Promise<void> {
    const dense = new DenseGuest(guest)
    this.#guests.set(dense.id, dense)
    const keeper = await this.keeper()
    await keeper.ask('attach', { guest: dense.kept })
    this.#watch(dense)
    this.#passes ??= this.#pass()
  }

  #watch(dense: DenseGuest): void {
    dense.watch({
      sample: () => undefined,
      failed: (error) => this.#say(dense.owner.name, `its memory is not watched any more: ${error.message}`),
    })
  }

  /** The keeper of this host, which serves all dense guests. @throws SubpageError KEEPER_FAILED */
  keeper(): Promise<KeeperClient> {
    this.#keeper ??= this.#connect().catch((error) => {
      this.#keeper = undefined
      throw error
    })
    return this.#keeper
  }

  async #connect(): Promise<KeeperClient> {
    const keeper = (await KeeperClient.find(this.#place)) ?? (await KeeperClient.start(this.#place))
    try {
      for (const dense of this.#guests.values()) if (dense.settings) await this.#attachAgain(keeper, dense)
    } catch (error) {
      // Whoever asks for it next connects anew.
      keeper.close()
      throw error
    }
    void keeper.closed.then(() => this.#lost(keeper.hung))
    if (this.#guests.size > 0) this.#passes ??= this.#pass()
    return keeper
  }

  /** One guest that the keeper cannot serve must not keep all others from it: it is tried again with its next pass. */
  async #attachAgain(keeper: KeeperClient, dense: DenseGuest): Promise<void> {
    this.#unattached.add(dense)
    try {
      await keeper.ask('attach', { guest: dense.kept })
      this.#unattached.delete(dense)
      this.#watch(dense)
    } catch (error) {
      if (error instanceof SubpageError && error.code === 'KEEPER_FAILED') throw error
      this.#failed(dense, error)
    }
  }

  /**
   * A guest of a former supervisor does not answer, and the keeper may be why: one that hangs is ended.
   * @param pauses it keeps the guest paused, so it hangs
   */
  async endIfStuck(pauses: boolean): Promise<void> {
    try {
      const keeper = await this.keeper()
      if (pauses) keeper.end(`it kept a guest paused for ${keeperTimes.hungMs / 1000} s`)
    } catch (error) {
      this.#say('', asSubpageError(error).message)
    }
  }

  /** Guests may be waiting for a page: the next keeper must come at once. */
  async #lost(hung: string | undefined): Promise<void> {
    this.#keeper = undefined
    while (this.#guests.size > 0 && !this.#closing.signal.aborted) {
      const how = hung === undefined ? 'has ended' : `hung and was ended (${hung})`
      this.#say('', `the keeper of dense memory ${how}; a new one is started`)
      try {
        await this.keeper()
        return
      } catch (error) {
        this.#say('', asSubpageError(error).message)
        await delay(restartMs)
      }
    }
  }

  async #pass(): Promise<void> {
    const { signal } = this.#closing
    while (!signal.aborted) {
      let cpuMs = 0
      const startedAt = performance.now()
      for (const dense of this.#guests.values()) cpuMs += await this.#passOver(dense)
      cpuMs += await this.#sweep()
      const tookMs = performance.now() - startedAt
      // Woken by the end.
      await delay(Math.max(1, passMs - tookMs, cpuMs / this.#budget - tookMs), undefined, { signal }).catch(
        () => undefined,
      )
    }
  }

  get #budget(): number {
    // Whoever comes next has not spent anything yet.
    if (this.#guests.size === 0) return 1
    return Math.max(0.001, ...[...this.#guests.values()].map(({ settings }) => settings?.budget ?? 0))
  }

  /** @returns the milliseconds that were computed for it */
  async #passOver(dense: DenseGuest): Promise<number> {
    try {
      const keeper = await this.keeper()
      if (this.#unattached.has(dense)) await this.#attachAgain(keeper, dense)
      if (this.#unattached.has(dense)) return 0
      this.#watch(dense)
      const cpuMs = await dense.owner.qemu.hang.during(dense.pass(keeper))
      this.#errors.delete(dense.id)
      return cpuMs
    } catch (thrown) {
      this.#failed(dense, thrown)
      return 0
    }
  }

  #failed(dense: DenseGuest, thrown: unknown): void {
    // It has ended, or is being let go of.
    if (this.#guests.get(dense.id) !== dense || this.#closing.signal.aborted) return
    const { message } = asSubpageError(thrown)
    if (message !== this.#errors.get(dense.id)) this.#say(dense.owner.name, message)
    this.#errors.set(dense.id, message)
  }

  async #sweep(): Promise<number> {
    if (this.#guests.size === 0 || this.#closing.signal.aborted) return 0
    try {
      const sizes = { objectsMax: sweepObjects, agePack: packRounds, ageSwap: this.#swapRounds }
      return (await (await this.keeper()).ask('sweep', sizes)).cpuMs
    } catch {
      // The passes over guests meet the same keeper, and say what is wrong with it.
      return 0
    }
  }

  #say(guest: string, text: string): void {
    this.#events.add(guest, 'density', text)
  }
}
