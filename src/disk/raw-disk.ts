/** A standby's copy of a disk: a raw file, into which records are written, and which its waiting QEMU has open as well. */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { SubpageError } from '../errors.ts'
import type { ChunkMap } from './chunk-map.ts'
import { claimCopy } from './disk-lock.ts'
import { applyDisk, type ChunkRange, hashDisk, syncDisk, writeBackDisk } from './records.ts'

/**
 * What was applied begins to go to the medium so much later. The kernel would leave it for half a minute, and a takeover, which
 * syncs the disks before the guest runs, would wait for all of it. Blocks that are written again meanwhile go once.
 */
const writeBackAfterMs = 100

/** One disk of this process at a time: a medium with no room in its queue holds up one thread of the pool, which others use. */
let writingBack: Promise<unknown> = Promise.resolve()

export class RawDisk {
  readonly bytes: number
  readonly path: string
  readonly made: boolean
  readonly map: ChunkMap | undefined
  readonly #file: number
  /** Of its own: what is on its way keeps nobody from taking the copy, which is locked by the other one. */
  readonly #toWriteBack: number
  /** What is under way uses the file. */
  #using: Promise<unknown> = Promise.resolve()
  #writeBack: NodeJS.Timeout | undefined
  #closed = false

  /** Nobody else keeps a copy there as long as it is open. @throws SubpageError DISK_UNUSABLE, the file system's own error */
  constructor(path: string, bytes: number, made: boolean, map?: ChunkMap) {
    this.map = map
    this.bytes = bytes
    this.path = path
    this.made = made
    this.#file = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW)
    try {
      claimCopy(path, this.#file)
      this.#toWriteBack = openSync(`/proc/self/fd/${this.#file}`, constants.O_RDONLY)
    } catch (error) {
      closeSync(this.#file)
      throw error
    }
  }

  /** Writes records, which have been checked. @param from where they begin in `payload` */
  apply(payload: Uint8Array, from: number): Promise<void> {
    return this.#use(async () => {
      this.map?.unsettle()
      await applyDisk(this.#file, payload, from)
      // Whoever finds the map later sees whether anybody else has written since.
      this.map?.settle(fstatSync(this.#file, { bigint: true }).mtimeNs)
      this.#writeBack ??= setTimeout(() => this.#beginWriteBack(), writeBackAfterMs)
    })
  }

  hashes(range?: ChunkRange): Promise<Uint8Array> {
    return this.#use(() => hashDisk(this.#file, this.bytes, range))
  }

  sync(): Promise<void> {
    return this.#use(() => syncDisk(this.#file))
  }

  /** When nothing is under way any more. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#using
    clearTimeout(this.#writeBack)
    void writingBack.then(() => closeSync(this.#toWriteBack))
    closeSync(this.#file)
  }

  /** Beside what uses the file: the next checkpoint need not wait for a slow medium. */
  #beginWriteBack(): void {
    writingBack = writingBack.then(async () => {
      this.#writeBack = undefined
      // Where the file can do that; whoever syncs it hears of what cannot be written.
      if (!this.#closed) await writeBackDisk(this.#toWriteBack).catch(() => undefined)
    })
  }

  /** @throws SubpageError DISK_FAILED once it is closed: its descriptor may be another file's */
  #use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new SubpageError('DISK_FAILED', `${this.path} was let go of`))
    const done = this.#using.then(work)
    // Whoever asked for it hears of a failure.
    this.#using = done.catch(() => undefined)
    return done
  }
}
