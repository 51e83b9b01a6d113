/** The record of a guest that this process looks after, and its file, until the guest and its files are gone. */
import { setTimeout as delay } from 'node:timers/promises'
import type { GuestFiles } from './guest-files.ts'
import { type GuestRecord, syncRecord, writeRecord } from './guest-record.ts'

/** So long a decision waits for the disk that its record is written to. */
const syncMsMax = 1_000

export class KeptRecord {
  readonly #files: GuestFiles
  readonly #tell: (text: string) => void
  #record: GuestRecord
  #gone = false
  /** Why it could not be written last. */
  #unwritten: string | undefined

  /** @param tell what people should know, once */
  constructor(files: GuestFiles, record: GuestRecord, tell: (text: string) => void) {
    this.#files = files
    this.#record = record
    this.#tell = tell
  }

  get record(): GuestRecord {
    return this.#record
  }

  /** @throws NodeJS.ErrnoException, SubpageError NO_SPACE: nothing has changed then */
  replace(record: GuestRecord): void {
    if (!this.#gone) writeRecord(this.#files, record)
    this.#record = record
  }

  /** @throws as replace */
  update(change: Partial<GuestRecord>): void {
    this.replace({ ...this.#record, ...change })
  }

  /** As `update`, of what has happened: it is so, whether it can be written or not. */
  note(change: Partial<GuestRecord>): void {
    const unwritten = this.#write(change)
    // A sync would say more of what is written.
    if (unwritten !== undefined) this.#say(unwritten)
  }

  /**
   * What has happened, and a loss of power must not undo. Whoever waits for it waits for no disk that hangs: the guest matters
   * more.
   */
  async writeDown(change: Partial<GuestRecord>): Promise<void> {
    const unwritten = this.#write(change)
    this.#say(this.#gone ? undefined : (unwritten ?? (await this.#unsynced())))
  }

  /** Its files are going: what an arbiter or a standby answers from now on is of no guest any more. */
  forget(): void {
    this.#gone = true
  }

  /** @returns why it was not */
  #write(change: Partial<GuestRecord>): string | undefined {
    const record = { ...this.#record, ...change }
    try {
      this.replace(record)
      return undefined
    } catch (error) {
      this.#record = record
      return (error as Error).message
    }
  }

  async #unsynced(): Promise<string | undefined> {
    const late = delay(syncMsMax, 'its disk does not answer', { ref: false })
    const synced = syncRecord(this.#files).then(
      () => undefined,
      (error: Error) => error.message,
    )
    return await Promise.race([late, synced])
  }

  #say(unwritten: string | undefined): void {
    if (unwritten !== undefined && unwritten !== this.#unwritten)
      this.#tell(`its record may not outlast a loss of power: ${unwritten}`)
    this.#unwritten = unwritten
  }
}
