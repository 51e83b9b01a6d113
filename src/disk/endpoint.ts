/**
 * The endpoint of a disk: the NBD server that QEMU mirrors one disk into (native/disk), a thread of this process, and the journal
 * of what was written. It keeps no copy of the disk, and answers no read. QEMU sees a write completed when the journal has it; if
 * the journal is full, the write waits until something is taken or the mode becomes `drop`.
 */
import type { FileHandle } from 'node:fs/promises'
import { addon } from '../memory/native.ts'
import type { DiskHandle } from '../memory/native-disk.ts'
import type { ChunkRange } from './records.ts'

export interface DiskEndpointOptions {
  /** Of the unix socket, at most 107 bytes; a socket that was there is replaced. */
  path: string
  /** Size of the disk. */
  bytes: number
  /** Of both lists together, in memory; a write that is larger is taken when they are empty. */
  journalBytesMax: number
}

export interface DiskStats {
  /** A client has finished its negotiation and is served. */
  connected: boolean
  /** So many have been. */
  connections: number
  /** Data, and 64 bytes a record. */
  currentBytes: number
  sealedBytes: number
  /** Data of these that is in the file, and that ever was there. */
  spilledBytes: number
  spilledTotalBytes: number
  writes: number
  writtenBytes: number
  /** Not recorded, because the standby holds the same. */
  equalBytes: number
  /** Recorded without their content. */
  zeroBytes: number
  flushes: number
  /** Since when the present write waits for room; 0: none does. */
  waitingMs: number
  mode: 'drop' | 'record'
  /** What was recorded is not whole, and each take says why. */
  broken: boolean
  /** Requests that were answered. */
  requests: number
}

const statCount = 15
/** The smallest buffer that records are taken into (journal.h). */
const takeBytesMin = 17
/** What fails while nobody takes is told within this. */
const lookMs = 100

/** Chunks that are filled at a time. */
export const fillChunks = 16

export class DiskEndpoint {
  private readonly handle: DiskHandle
  #look: NodeJS.Timeout | undefined

  private constructor(handle: DiskHandle) {
    this.handle = handle
  }

  /** Listens at once; begins in the mode `drop`. @throws Error whose `code` is the name of the errno (ENAMETOOLONG, EACCES, ...) */
  static open({ path, bytes, journalBytesMax }: DiskEndpointOptions): DiskEndpoint {
    return new DiskEndpoint(addon.diskOpen(path, bytes, journalBytesMax))
  }

  /**
   * What the standby's disk holds, as `hashDisk` gives it: chunks that are written with just that are not recorded, unless somebody
   * has written something else there since. None: nothing is known.
   */
  know(hashes: Uint8Array): void {
    addon.diskKnow(this.handle, hashes)
  }

  /**
   * From now on all that is written has been marked in the map at `path` before (chunk-map.ts); what is not makes the map useless.
   * @param marks nobody has: each is marked here, before QEMU sees it completed
   * @throws Error whose `code` is the name of the errno
   */
  watch(path: string, marks: boolean): void {
    addon.diskWatch(this.handle, path, marks)
  }

  /**
   * From now on what has no room in memory goes into a file, which is the endpoint's then. If that cannot be written or read the guest
   * writes on, nothing more is recorded, and `take` throws.
   * @param bytesMax of the file
   * @param broke told once, also while nobody takes; `code` is the name of the errno
   */
  spillTo(file: FileHandle, bytesMax: number, broke: (cause: Error) => void): void {
    addon.diskSpill(this.handle, file.fd, bytesMax)
    this.#look = setInterval(() => {
      if (!this.stats.broken) return
      clearInterval(this.#look)
      try {
        this.take(new Uint8Array(takeBytesMin), true)
      } catch (error) {
        broke(error as Error)
      }
    }, lookMs).unref()
  }

  /** Chunks that are going to be read for `fill`, at most `fillChunks`. */
  beginFill({ first, count }: ChunkRange): void {
    addon.diskBeginFill(this.handle, first, count)
  }

  /**
   * Records what was read of the disk, though the guest did not write it now.
   * @param data of whole chunks
   * @returns which of them the guest has written since, so that they must be read again; undefined: there is no room yet
   */
  fill(first: number, data: Uint8Array): number[] | undefined {
    const again = addon.diskFill(this.handle, first, data)
    if (again === 1 << fillChunks) return undefined
    return Array.from({ length: fillChunks }, (_, n) => n)
      .filter((n) => (again >> n) & 1)
      .map((n) => first + n)
  }

  /** Writes are recorded from now on. */
  record(): void {
    addon.diskRecord(this.handle)
  }

  /** Both lists are emptied, and what is known of the standby is forgotten; writes are acknowledged and forgotten from now on. */
  drop(): void {
    addon.diskDrop(this.handle)
  }

  /** What was written since the last seal goes behind what is sealed. */
  seal(): void {
    addon.diskSeal(this.handle)
  }

  /** What is sealed, and was not taken, goes back before what was written since. */
  unseal(): void {
    addon.diskUnseal(this.handle)
  }

  /**
   * Moves records (records.ts) into `into`, which has `takeBytesMin` or more; the last one is split where it does not fit.
   * @returns the bytes used; 0: the list is empty
   * @throws Error whose `code` is the name of the errno, such as ENOSPC: what was recorded is not whole
   */
  take(into: Uint8Array, sealed: boolean): number {
    return addon.diskTake(this.handle, into, sealed)
  }

  get stats(): DiskStats {
    const results = new Float64Array(statCount)
    addon.diskStats(this.handle, results)
    const at = (index: number) => results[index] ?? 0
    return {
      connected: at(0) === 1,
      connections: at(1),
      currentBytes: at(2),
      sealedBytes: at(3),
      writes: at(4),
      writtenBytes: at(5),
      equalBytes: at(6),
      zeroBytes: at(7),
      flushes: at(8),
      waitingMs: at(9),
      mode: at(10) === 1 ? 'record' : 'drop',
      requests: at(11),
      spilledBytes: at(12),
      spilledTotalBytes: at(13),
      broken: at(14) !== 0,
    }
  }

  /** Ends the server and removes the socket; twice is once. */
  close(): void {
    clearInterval(this.#look)
    addon.diskClose(this.handle)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
