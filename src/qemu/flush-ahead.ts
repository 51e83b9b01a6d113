/**
 * Takes the flush of disks out of the pause. `stop` ends with an fdatasync of each disk that was written to since its last flush. If
 * that takes long, the same is done right before the pause, while the guest runs: little is left for QEMU's own then. Nothing
 * is done without: QEMU's flush still comes after it, so what it promises holds whatever becomes of this one.
 */
import { close, fdatasync, openSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { leaseMs } from './stand-still.ts'

/** A flush in a pause that takes longer is done ahead; one ahead that takes less than half of it is not worth it any more. */
const costlyUs = 1000
const sync = promisify(fdatasync)

/** The disks of a guest. */
export interface Flushed {
  /** Files and devices. */
  paths: readonly string[]
  /** How many writes there were; undefined: that is not known. */
  writes: () => number | undefined
}

export class FlushAhead {
  readonly #disks: Flushed
  readonly #sync: (file: number) => Promise<void>
  #files: number[] | undefined
  #on = false
  #cheap = false
  #writes: number | undefined
  #underWay: Promise<void> | undefined

  /** @param syncFile as fdatasync(2) */
  constructor(disks: Flushed, syncFile: (file: number) => Promise<void> = sync) {
    this.#disks = disks
    this.#sync = syncFile
  }

  /** Right before a pause. A disk that gives no answer is not waited for for ever. */
  async run(): Promise<void> {
    const writes = this.#disks.writes()
    if (!this.#on || writes === undefined || writes === this.#writes) return
    this.#writes = writes
    const startedAt = performance.now()
    // One that hangs is not joined by more.
    this.#underWay ??= this.#all().finally(() => {
      this.#underWay = undefined
    })
    await Promise.race([this.#underWay, delay(leaseMs, undefined, { ref: false })])
    this.#cheap = (performance.now() - startedAt) * 1000 < costlyUs / 2
  }

  /** @param flushUs what the flush took in the pause */
  paused(flushUs: number): void {
    if (flushUs > costlyUs) this.#on = true
    else if (this.#cheap) this.#on = false
    this.#cheap = false
  }

  close(): void {
    for (const file of this.#files ?? []) close(file)
    this.#files = undefined
    this.#on = false
  }

  async #all(): Promise<void> {
    try {
      this.#files ??= this.#disks.paths.map((path) => openSync(path, 'r'))
      for (const file of this.#files) await this.#sync(file)
    } catch {
      // The disk is QEMU's: of an error the guest hears when QEMU flushes.
      this.#on = false
    }
  }
}
