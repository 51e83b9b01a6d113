/**
 * The agent's side of the pause lease: a guest that we paused runs again even if we die or hang, because the guard
 * inside QEMU resumes it when the lease runs out. Protocol, states and races: native/shim/lease.h.
 *
 *   acquire -> `stop` -> capture -> release -> `cont` -> resumed
 */
import { writeFileSync } from 'node:fs'
import { SubpageError } from '../errors.ts'
import { addon, type LeaseHandle } from '../memory/native.ts'

const none = 0n

export class PauseLease {
  readonly #lease: LeaseHandle
  /** The deadline that we wrote last and have not cleared; `none` when we hold no lease. */
  #held = none
  #holdMs = 0

  private constructor(lease: LeaseHandle) {
    this.#lease = lease
  }

  /** Writes a lease that nobody holds; before QEMU starts, since the shim maps it then. */
  static create(path: string): void {
    writeFileSync(path, Buffer.alloc(4096), { mode: 0o600 })
  }

  /** @throws the file system's own error, such as ENOENT. */
  static open(path: string): PauseLease {
    return new PauseLease(addon.leaseOpen(path))
  }

  /**
   * Takes the lease, before `stop` is sent.
   * @param holdMs up to 60000; the guard resumes the guest this long after
   * @throws SubpageError PAUSE_BROKEN while the guard still ends an earlier pause: try again at the next epoch
   */
  acquire(holdMs: number): void {
    // What we still hold is from a pause whose `cont` was never confirmed; the new one takes its place.
    const renewed = this.#held === none ? none : addon.leaseRenew(this.#lease, this.#held, holdMs)
    this.#held = renewed === none ? addon.leaseTake(this.#lease, holdMs) : renewed
    this.#holdMs = holdMs
    if (this.#held === none)
      throw new SubpageError('PAUSE_BROKEN', 'the guard is still ending an earlier pause of this guest')
  }

  /**
   * After the capture and before `cont`. False when the guard has resumed the guest meanwhile: memory may be torn, the
   * checkpoint must be thrown away. `cont` is to be sent either way. The guest stays guarded until `resumed`.
   */
  release(): boolean {
    this.#held = this.#held === none ? none : addon.leaseRenew(this.#lease, this.#held, this.#holdMs)
    return this.#held !== none
  }

  /** After QEMU has answered `cont`: nothing is left to guard. */
  resumed(): void {
    if (this.#held !== none) addon.leaseClear(this.#lease, this.#held)
    this.#held = none
  }

  /**
   * Takes over the pause of an agent that died in it. True when there was one: send `cont`, then call `resumed`. False
   * when there is none, or the guard is ending it.
   */
  inherit(holdMs: number): boolean {
    this.#held = addon.leaseRenew(this.#lease, addon.leaseWord(this.#lease), holdMs)
    this.#holdMs = holdMs
    return this.#held !== none
  }

  /** True from a passed deadline until the guest runs again. */
  get expired(): boolean {
    return addon.leaseWord(this.#lease) === addon.leaseExpired
  }

  /** How many pauses the guard has ended since QEMU started. */
  get expiryCount(): number {
    return Number(addon.leaseExpiries(this.#lease))
  }

  close(): void {
    addon.leaseClose(this.#lease)
  }
}
