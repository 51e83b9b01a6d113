/**
 * The generation of a guest, and the right to open the next one. A generation is a time without a decision: however
 * often primary and standby lose and find each other within it, it stays the same. Whoever wants to go on without the
 * other claims the next one; the arbiter grants it once. Both sides count from the same number, so both ask for the same
 * decision, and one of them learns that it has lost.
 *
 * A standby that is granted a generation and never runs the guest (its machine died meanwhile, or its agent) gives it back.
 * That is a decision too, under an id of its own that follows from the guest's: who holds (returned id, generation) has
 * given that generation back. It is void then, for ever and for both: the next one is claimed in its place.
 *
 * A claim without an answer may have been granted. Until there is an answer its claimant must not do anything that
 * presumes the opposite: `undecided` says so.
 */
import { createHash } from 'node:crypto'
import { SubpageError } from '../errors.ts'
import type { Arbiter, Holder } from './arbiter.ts'

export interface SuccessionOptions {
  /** Unique id of the guest. */
  guest: string
  /** Unique name of this host. */
  claimant: string
  generation: number
  /** None: only people decide, by command. */
  arbiter: Arbiter | undefined
  /** Whether the two hosts have found, when they last met, that they see the same arbiter. */
  shared: boolean
  /** Writes generation and `shared` down, durably, before anything is done in it. */
  save: (generation: number, shared: boolean) => void
}

export class Succession {
  readonly #options: SuccessionOptions
  #generation: number
  #undecided = false
  /** Claims that are on their way. */
  #claiming: Promise<unknown> = Promise.resolve()
  /** What a claim of ours has won. */
  #granted: number | undefined
  #used = false
  #shared: boolean

  constructor(options: SuccessionOptions) {
    this.#options = options
    this.#generation = options.generation
    this.#shared = options.shared && options.arbiter !== undefined
  }

  get generation(): number {
    return this.#generation
  }

  /** False: nothing goes on by itself when the other side is lost. */
  get arbitrated(): boolean {
    return this.#shared
  }

  /** Who decides, for status; null: only people. */
  get arbiter(): string | null {
    return this.#shared ? (this.#options.arbiter?.description ?? null) : null
  }

  /** The two hosts have compared their arbiters. */
  agree(shared: boolean): void {
    if (shared === this.#shared) return
    this.#shared = shared && this.#options.arbiter !== undefined
    this.#options.save(this.#generation, this.#shared)
  }

  get undecided(): boolean {
    return this.#undecided
  }

  /**
   * Before the guest is protected: makes sure that nobody has gone on with it, and writes our generation down with the
   * arbiter too, so that it can be seen later to remember it.
   * @throws SubpageError HELD_ELSEWHERE, ARBITER_UNREACHABLE
   */
  async anchor(signal?: AbortSignal): Promise<void> {
    const { arbiter, guest, claimant } = this.#options
    if (!arbiter || !this.#shared) return
    const holder = await arbiter.claim(guest, this.#generation, claimant, signal)
    if (holder.claimant !== claimant)
      throw new SubpageError(
        'HELD_ELSEWHERE',
        `${holder.claimant} holds generation ${this.#generation} of the guest`,
      )
    // We may come back to a standby that knows nothing any more: it took over, and its copy has ended.
    const successor = await this.successor(signal)
    if (successor)
      throw new SubpageError(
        'HELD_ELSEWHERE',
        `${successor.claimant} has taken the guest over (generation ${successor.generation})`,
      )
  }

  /**
   * Claims the next generation. Undefined: it is ours, and written down. Otherwise who has it.
   * @throws SubpageError ARBITER_UNREACHABLE; the claim is undecided then and has to be repeated
   */
  claim(signal?: AbortSignal): Promise<Holder | undefined> {
    const claim = this.#claim(signal)
    this.#claiming = Promise.allSettled([this.#claiming, claim])
    return claim
  }

  /**
   * Claims the next generation that nobody holds, whoever holds those before: the operator knows that they are gone. One that
   * is not gone learns it when it next asks.
   */
  async claimBeyond(): Promise<Holder | undefined> {
    for (;;) {
      const holder = await this.claim()
      if (!holder) return undefined
      this.#generation = holder.generation
    }
  }

  async #claim(signal?: AbortSignal): Promise<Holder | undefined> {
    const { arbiter, guest, claimant } = this.#options
    if (!arbiter || !this.#shared)
      throw new SubpageError('ARBITER_UNREACHABLE', 'this pair has no arbiter: only a command decides')
    // Fixed before we wait: should the peer go on meanwhile, the decision that it has won must not be passed over.
    let next = this.#generation + 1
    // An arbiter that has lost its memory (a share that is not mounted, a cluster set up anew) would grant again what
    // somebody holds already.
    if (!(await arbiter.holder(guest, next - 1, signal)))
      throw new SubpageError(
        'ARBITER_UNREACHABLE',
        `${arbiter.description} does not remember generation ${this.#generation} of the guest, so it must not decide about the next`,
      )
    while (await arbiter.holder(returnedId(guest), next, signal)) next++
    this.#undecided = true
    const holder = await arbiter.claim(guest, next, claimant, signal)
    this.#undecided = false
    if (holder.claimant !== claimant) return holder
    this.#granted = next
    this.adopt(next)
    return undefined
  }

  /** From here on the guest may run here: nothing is given back any more. */
  use(): void {
    this.#used = true
  }

  /**
   * The guest has not run here and never will in what a claim of ours has won, or wins: gives it back.
   * @throws SubpageError ARBITER_UNREACHABLE; it has to be repeated
   */
  async giveBack(): Promise<void> {
    await this.#claiming
    if (this.#used) return
    if (this.#undecided) await this.claim()
    if (this.#granted !== undefined) await this.#giveBack(this.#granted)
    this.#granted = undefined
  }

  /** The same for what an earlier agent of this host has claimed for a standby that is no more. */
  async giveBackLeft(): Promise<void> {
    const { arbiter, guest, claimant } = this.#options
    if (!arbiter || !this.#shared) return
    for (const generation of [this.#generation, this.#generation + 1])
      if ((await arbiter.holder(guest, generation))?.claimant === claimant) await this.#giveBack(generation)
  }

  async #giveBack(generation: number): Promise<void> {
    const { arbiter, guest, claimant } = this.#options
    await arbiter?.claim(returnedId(guest), generation, claimant)
  }

  /** Who else holds the next generation, if anybody. @throws SubpageError ARBITER_UNREACHABLE */
  async successor(signal?: AbortSignal): Promise<Holder | undefined> {
    const { arbiter, guest, claimant } = this.#options
    if (!arbiter || !this.#shared) return undefined
    for (let next = this.#generation + 1; ; next++) {
      const holder = await arbiter.holder(guest, next, signal)
      if (holder && (await arbiter.holder(returnedId(guest), next, signal))) continue
      return holder?.claimant === claimant ? undefined : holder
    }
  }

  /**
   * Goes on in the next generation without a claim. The next session writes it down with the arbiter; until then nobody has
   * to be asked, not even after a restart of this agent.
   */
  adoptUnasked(): void {
    this.#shared = false
    this.adopt(this.#generation + 1)
  }

  /** Goes on in a generation that was granted to us, to our peer, or by command. */
  adopt(generation: number): void {
    this.#options.save(generation, this.#shared)
    this.#generation = generation
    this.#undecided = false
  }
}

/** A UUID that no guest has by chance: of the form for private use (RFC 9562, version 8). */
function returnedId(guest: string): string {
  const hex = createHash('sha256').update(`${guest.toLowerCase()} returned`).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}
