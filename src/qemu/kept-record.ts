/** The record of a guest that this process looks after, and its file, until the guest and its files are gone. */
import { setTimeout as delay } from 'node:timers/promises'
import type { GuestFiles } from './guest-files.ts'
import { type GuestRecord, syncRecord, writeRecord } from './guest-record.ts'

/** So long a decision waits for the disk that its record is written to. */
const syncMsMax = 1_000

export class KeptRecord {
  readonly #files: GuestFiles
  #record: GuestRecord
  #gone = false

  constructor(files: GuestFiles, record: GuestRecord) {
    this.#files = files
    this.#record = record
  }

  get record(): GuestRecord {
    return this.#record
  }

  replace(record: GuestRecord): void {
    if (!this.#gone) writeRecord(this.#files, record)
    this.#record = record
  }

  update(change: Partial<GuestRecord>): void {
    this.replace({ ...this.#record, ...change })
  }

  /**
   * A change that a loss of power must not undo. Whoever waits for it waits for no disk that hangs: the guest matters more.
   * @returns why it may not outlast one
   */
  async writeDown(change: Partial<GuestRecord>): Promise<string | undefined> {
    this.update(change)
    if (this.#gone) return undefined
    const late = delay(syncMsMax, 'its disk does not answer', { ref: false })
    const synced = syncRecord(this.#files).then(
      () => undefined,
      (error: Error) => error.message,
    )
    return await Promise.race([late, synced])
  }

  /** Its files are going: what an arbiter or a standby answers from now on is of no guest any more. */
  forget(): void {
    this.#gone = true
  }
}
