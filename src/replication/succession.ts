/**
 * The generation of a guest, and the right to open the next one. A generation is a time without a decision: however
 * often primary and standby lose and find each other within it, it stays the same. Whoever wants to go on without the
 * other claims the next one; the arbiter grants it once. Both sides count from the same number, so both ask for the same
 * decision, and one of them learns that it has lost.
 *
 * A standby that is granted a generation and never runs the guest (its machine died meanwhile, or its supervisor) gives it back.
 * That is a decision too, under an id of its own that follows from the guest's: who holds (returned id, generation) has
 * given that generation back. It is void then, for ever and for both: the next one is claimed in its place. And whoever holds
 * (dismissed id, generation) has no use any more for a standby that the other was left with before, and could not tell it.
 *
 * A claim without an answer may have been granted. Until there is an answer its claimant must not do anything that
 * presumes the opposite: `undecided` says so.
 */
import { SubpageError } from '../errors.ts'
import type { Arbiter, Holder } from './arbiter.ts'
import { sameHost } from './claimant.ts'
import { derivedId } from './derived-id.ts'
import type { OtherCopy } from './held-elsewhere.ts'
import type { SuccessionOptions } from './succession-options.ts'

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
  #peer: string | undefined
  /** Which memory of the arbiter's both hosts have met in; undefined: they have not met in this process's time. */
  #memory: number | undefined

  constructor(options: SuccessionOptions) {
    this.#options = options
    this.#generation = options.generation
    this.#peer = options.peer
    this.#shared = options.arbitrated && options.arbiter !== undefined
  }

  get claimant(): string {
    return this.#options.claimant
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

  /** The two hosts have met, and compared their arbiters: who the other one is, and whether they see the same. */
  async agree(peer: string, shared: boolean): Promise<void> {
    const { arbiter } = this.#options
    this.#memory = arbiter?.memory
    if (shared === this.#shared && peer === this.#peer) return
    this.#shared = shared && arbiter !== undefined
    this.#peer = peer
    await this.#save()
  }

  /** The other host when they last met. */
  get peer(): string | undefined {
    return this.#peer
  }

  /**
   * Whether a copy that runs on another host is the one to go on: it has a generation that was decided, or commanded, after
   * ours. An equal or older one decides nothing, and a copy of our own name is ourselves, or a host that must not have it.
   */
  yieldsTo({ claimant, generation, runs }: OtherCopy): boolean {
    return runs && generation > this.#generation && !sameHost(claimant, this.#options.claimant)
  }

  /** Whether the arbiter remembers what another host says was decided. @throws SubpageError ARBITER_UNREACHABLE */
  async remembers({ generation }: OtherCopy, signal?: AbortSignal): Promise<boolean> {
    const { arbiter, guest } = this.#options
    if (!arbiter || !this.#shared || generation <= this.#generation) return true
    const ids = [guest, derivedId(guest, 'returned')]
    for (const id of ids) if (await arbiter.holder(id, generation, signal)) return true
    return false
  }

  get undecided(): boolean {
    return this.#undecided
  }

  /**
   * Before the guest is protected: makes sure that nobody has gone on with it, and writes our generation down with the
   * arbiter too, so that it can be seen later to remember it. A next generation that is ours already, for the answer to its
   * claim was lost, is adopted.
   * @throws SubpageError HELD_ELSEWHERE, ARBITER_UNREACHABLE
   */
  async anchor(signal?: AbortSignal): Promise<void> {
    const { arbiter, guest, claimant } = this.#options
    if (!arbiter || !this.#shared) return
    let holder = await arbiter.claim(guest, this.#generation, claimant, signal)
    // Granted to the peer, whose guest died right then, while we went on unasked: it is our standby now, so it is passed over.
    while (this.#peer !== undefined && sameHost(holder.claimant, this.#peer)) {
      await this.adopt(this.#generation + 1)
      holder = await arbiter.claim(guest, this.#generation, claimant, signal)
    }
    if (!this.#isOurs(holder))
      throw new SubpageError(
        'HELD_ELSEWHERE',
        `${arbiter.description} says that ${holder.claimant} holds generation ${this.#generation} of the guest, which runs here: it was restored from a backup, or the guest runs there, too; then end one of the two with subpage remove`,
      )
    // We may come back to a standby that knows nothing any more: it took over, and its copy has ended.
    for (let next = await this.#next(signal); next; next = await this.#next(signal)) {
      if (!this.#isOurs(next))
        throw new SubpageError(
          'HELD_ELSEWHERE',
          `${next.claimant} has taken the guest over (generation ${next.generation})`,
        )
      await this.adopt(next.generation)
    }
    this.#memory = arbiter.memory
    // What a claim of ours may have won it has forgotten, or it was adopted above.
    this.#undecided = false
  }

  /**
   * Whether the arbiter still knows what we go by.
   * @returns `forgotten`: it does not, or its memory is another one; who has gone on, or holds our generation instead of us
   * @throws SubpageError ARBITER_UNREACHABLE
   */
  async recall(signal?: AbortSignal): Promise<'known' | 'forgotten' | Holder> {
    const { arbiter, guest } = this.#options
    if (!arbiter || !this.#shared || this.#undecided) return 'known'
    const holder = await arbiter.holder(guest, this.#generation, signal)
    if (holder && !this.#isOurs(holder)) return holder
    const next = await this.#next(signal)
    if (next && !this.#isOurs(next)) return next
    return holder && !this.replaced ? 'known' : 'forgotten'
  }

  /** Tells an arbiter that has forgotten our generation again. Only while no standby can hold a checkpoint of it. */
  async remind(signal?: AbortSignal): Promise<void> {
    const { arbiter, guest, claimant } = this.#options
    if (!arbiter || !this.#shared) return
    const holder = await arbiter.claim(guest, this.#generation, claimant, signal)
    if (this.#isOurs(holder)) this.#memory = arbiter.memory
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
    this.#assertSame(arbiter)
    next = await this.#unreturned(arbiter, next, signal)
    this.#undecided = true
    const holder = await arbiter.claim(guest, next, claimant, signal)
    this.#undecided = false
    // It was restored after it was asked, and grants what somebody may hold.
    if (this.replaced && this.#isOurs(holder)) await this.#giveBack(next)
    this.#assertSame(arbiter)
    if (!this.#isOurs(holder)) return holder
    this.#granted = next
    await this.adopt(next)
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

  /**
   * The primary is met again in our generation, though a claim of ours had no answer: whatever it won, or still wins, is given back, and
   * we stay where we are.
   * @throws SubpageError ARBITER_UNREACHABLE; it has to be repeated
   */
  async settleClaim(): Promise<void> {
    const { arbiter, guest, claimant } = this.#options
    if (!arbiter || !this.#shared || !this.#undecided) return
    const next = await this.#unreturned(arbiter, this.#generation + 1)
    if (this.#isOurs(await arbiter.claim(guest, next, claimant))) await this.#giveBack(next)
    this.#undecided = false
  }

  /** The same for what an earlier supervisor of this guest has claimed for a standby that is no more. */
  async giveBackLeft(): Promise<void> {
    const { arbiter, guest } = this.#options
    if (!arbiter || !this.#shared) return
    for (const generation of [this.#generation, this.#generation + 1]) {
      const holder = await arbiter.holder(guest, generation)
      if (holder && this.#isOurs(holder)) await this.#giveBack(generation)
    }
  }

  async #giveBack(generation: number): Promise<void> {
    const { arbiter, guest, claimant } = this.#options
    await arbiter?.claim(derivedId(guest, 'returned'), generation, claimant)
  }

  /**
   * Tells the other host's standby, by way of the arbiter, that it is not needed any more. Also when it is not known yet whether both
   * see the same: after a takeover that nobody was asked for, until the two have met.
   * @throws SubpageError ARBITER_UNREACHABLE
   */
  async dismissStandby(signal?: AbortSignal): Promise<void> {
    const { arbiter, guest, claimant } = this.#options
    await arbiter?.claim(derivedId(guest, 'dismissed'), this.#generation, claimant, signal)
  }

  /**
   * Whether our standby is not needed any more, as its primary has told the arbiter.
   * @param whole it held a checkpoint: then only a later generation can tell, for it has been made since an earlier word
   * @throws SubpageError ARBITER_UNREACHABLE
   */
  async dismissed(whole: boolean, signal?: AbortSignal): Promise<boolean> {
    const { arbiter, guest } = this.#options
    if (!arbiter || !this.#shared) return false
    const own = this.#generation
    // Our own one may never have been written down: its primary was ended before the two had met.
    for (let n = own; n === own || (await arbiter.holder(guest, n, signal)); n++) {
      if (whole && n === own) continue
      const by = await arbiter.holder(derivedId(guest, 'dismissed'), n, signal)
      if (by && !this.#isOurs(by)) return true
    }
    return false
  }

  /** Who else holds the next generation, if anybody. @throws SubpageError ARBITER_UNREACHABLE */
  async successor(signal?: AbortSignal): Promise<Holder | undefined> {
    const { arbiter } = this.#options
    const next = arbiter && this.#shared ? await this.#next(signal) : undefined
    return next && !this.#isOurs(next) ? next : undefined
  }

  /** The first generation, from one on, that was not given back. */
  async #unreturned(arbiter: Arbiter, from: number, signal?: AbortSignal): Promise<number> {
    for (let next = from; ; next++)
      if (!(await arbiter.holder(derivedId(this.#options.guest, 'returned'), next, signal))) return next
  }

  /** Who holds the first generation after ours that was not given back. */
  async #next(signal: AbortSignal | undefined): Promise<Holder | undefined> {
    const { arbiter, guest } = this.#options
    for (let next = this.#generation + 1; ; next++) {
      const holder = await arbiter?.holder(guest, next, signal)
      if (holder && (await arbiter?.holder(derivedId(guest, 'returned'), next, signal))) continue
      return holder
    }
  }

  #assertSame({ description }: Arbiter): void {
    if (this.replaced)
      throw new SubpageError(
        'ARBITER_UNREACHABLE',
        `${description} was restored or set up anew since the two hosts last met, so it must not decide before they meet again`,
      )
  }

  #isOurs({ claimant }: Holder): boolean {
    return sameHost(claimant, this.#options.claimant)
  }

  /** The arbiter has lost what it knew since the two hosts have met: what it grants, somebody may hold already. */
  get replaced(): boolean {
    return this.#memory !== undefined && this.#memory !== this.#options.arbiter?.memory
  }

  /**
   * Goes on in the next generation without a claim. The next session writes it down with the arbiter; until then nobody has
   * to be asked, not even after a restart of this supervisor.
   * @param force against whatever the arbiter may have granted: the primary may hold the next one
   */
  adoptUnasked(force = false): Promise<void> {
    const generation = this.#generation + (force && this.#shared ? 2 : 1)
    this.#shared = false
    return this.adopt(generation)
  }

  /** Goes on in a generation that was granted to us, to our peer, or by command. */
  async adopt(generation: number): Promise<void> {
    const saved = this.#save(generation)
    this.#generation = generation
    this.#undecided = false
    await saved
  }

  #save(generation = this.#generation): Promise<void> {
    const peer = this.#peer
    return this.#options.save({ generation, arbitrated: this.#shared, ...(peer !== undefined && { peer }) })
  }
}
