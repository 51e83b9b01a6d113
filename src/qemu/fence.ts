/**
 * The agent's side of the fence: until when packets may leave QEMU, whatever it was told before. The other side, and why,
 * is native/shim/fence.h; who may speak until when is src/replication/output-lease.ts.
 */
import { addon, type LeaseHandle } from '../memory/native.ts'

export interface Fence {
  /** Packets leave until then, by the clock of replication/clock.ts; 0: none, Infinity: all. */
  speakUntil(ms: number): void
}

export class ShimFence implements Fence {
  readonly #lease: LeaseHandle

  /** @param path of the lease file. @throws the file system's own error, such as ENOENT */
  constructor(path: string) {
    this.#lease = addon.leaseOpen(path)
  }

  speakUntil(ms: number): void {
    addon.leaseSpeak(this.#lease, ms)
  }

  /** How many packets came too late and were dropped, since QEMU started. */
  get silenced(): number {
    return addon.leaseSilenced(this.#lease)
  }

  close(): void {
    addon.leaseClose(this.#lease)
  }
}
