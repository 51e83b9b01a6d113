/** A standby's copy of a disk: a raw file, into which records are written, and which its waiting QEMU has open as well. */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import type { ChunkMap } from './chunk-map.ts'
import { claimCopy } from './disk-lock.ts'
import { applyDisk, type ChunkRange, hashDisk, syncDisk } from './records.ts'

export class RawDisk {
  readonly bytes: number
  readonly path: string
  readonly made: boolean
  readonly map: ChunkMap | undefined
  readonly #file: number
  /** What is under way uses the file. */
  #using: Promise<unknown> = Promise.resolve()
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
    closeSync(this.#file)
  }

  #use<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#using.then(work)
    // Whoever asked for it hears of a failure.
    this.#using = done.catch(() => undefined)
    return done
  }
}
