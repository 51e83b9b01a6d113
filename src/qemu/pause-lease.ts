/**
 * The agent's side of the pause lease: a guest that we paused runs again even if we die or hang, because the guard
 * inside QEMU resumes it when the lease runs out. Protocol, states and races: native/shim/lease.h.
 *
 *   acquire -> `stop` -> capture -> release -> `cont` -> resumed
 */
import { writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { SubpageError } from '../errors.ts'
import { type FileLock, lockFile } from '../memory/file-lock.ts'
import { addon, type LeaseHandle } from '../memory/native.ts'

const none = 0n
const lockedPollMs = 2
const lockTries = 20
/** Longer than any pause of ours, its overdue end included. */
const settleMsMax = 5_000

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
   * Resolves when a pause can begin: another program holds none (one that was killed in it holds it until the guard ends it). If it does
   * hold on to it, `acquire` says so. For pauses that come once; a checkpoint is tried again at the next epoch.
   */
  async settled(limitMs = settleMsMax): Promise<void> {
    const deadline = performance.now() + limitMs
    for (;;) {
      const word = addon.leaseWord(this.#lease)
      if (word === none || word === this.#held || performance.now() > deadline) return
      await delay(lockedPollMs)
    }
  }

  /**
   * Takes the lease, before `stop` is sent.
   * @param holdMs up to 60000; the guard resumes the guest this long after
   * @throws SubpageError PAUSE_BROKEN while another program holds a pause, or the guard ends one: try again at the next epoch
   */
  acquire(holdMs: number): void {
    // What we still hold is from a pause whose `cont` was never confirmed; the new one takes its place.
    const renewed = this.#held === none ? none : addon.leaseRenew(this.#lease, this.#held, holdMs)
    this.#held = renewed === none ? addon.leaseTake(this.#lease, holdMs) : renewed
    this.#holdMs = holdMs
    if (this.#held === none)
      throw new SubpageError(
        'PAUSE_BROKEN',
        'an earlier pause of this guest, by another program, has not ended yet',
      )
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

  /**
   * Hands the pause to another process for a while, which holds it by a lock in place of a deadline (`holdLocked`).
   * @param work gets what we hold, and resolves with what we hold then
   */
  async lend(work: (held: bigint) => Promise<bigint>): Promise<void> {
    try {
      this.#held = await work(this.#held)
    } finally {
      // Whoever moves pages may be at it still, though we have lost sight of it.
      await this.unlocked()
    }
  }

  /** Resolves when no other process holds a pause by the lock. */
  async unlocked(): Promise<void> {
    while (addon.leaseWord(this.#lease) === addon.leaseLocked) await delay(lockedPollMs)
  }

  /** True from a passed deadline until the guest runs again. */
  get expired(): boolean {
    return addon.leaseWord(this.#lease) === addon.leaseExpired
  }

  /** How many pauses the guard has ended since QEMU started. */
  get expiryCount(): number {
    return Number(addon.leaseExpiries(this.#lease))
  }

  /**
   * The guest's writes wait for mirrors in this process from now on: should it stand still, the guard cuts them.
   * @param nodes of QEMU's; none: there are no mirrors any more
   */
  mirrors(nodes: string[]): void {
    addon.leaseMirrors(this.#lease, nodes.map((node) => `${node}\0`).join(''))
  }

  /** How often the guard has cut mirrors since QEMU started. */
  get mirrorsCut(): number {
    return addon.leaseMirrorsCut(this.#lease)
  }

  /** What QEMU's flushes of disks have taken within pauses, since it started; 0 without the shim. */
  get flushedUs(): number {
    return addon.leaseFlushedUs(this.#lease)
  }

  close(): void {
    addon.leaseClose(this.#lease)
  }
}

const endedBefore = () =>
  new SubpageError('PAUSE_BROKEN', 'the pause has ended before pages could be moved in it')

/** The guard looks at the lock now and then, for a moment each. */
async function lockPause(path: string): Promise<FileLock> {
  for (let tries = 0; tries < lockTries; tries++) {
    const lock = lockFile(path)
    if (lock) return lock
    await delay(lockedPollMs)
  }
  throw endedBefore()
}

/**
 * Holds the pause of a guest for as long as `work` takes, by the lock of the lease file: the guest stands still until then,
 * and runs again if this process dies. For whoever moves pages of its RAM.
 * @param held the pause, which a lease of another process has begun; that lease goes on with what is returned
 * @throws SubpageError PAUSE_BROKEN when the pause has ended before
 */
export async function holdLocked<T>(
  path: string,
  held: bigint,
  holdMs: number,
  work: () => Promise<T>,
): Promise<{ value: T; held: bigint }> {
  const lock = await lockPause(path)
  let lease: LeaseHandle | undefined
  try {
    lease = addon.leaseOpen(path)
    if (!addon.leaseEnter(lease, held)) throw endedBefore()
    try {
      return { value: await work(), held: addon.leaseLeave(lease, holdMs) }
    } catch (error) {
      // Whoever lent the pause cannot know what it is now: the guard ends it.
      addon.leaseLeave(lease, 1)
      throw error
    }
  } finally {
    if (lease) addon.leaseClose(lease)
    lock.release()
  }
}
