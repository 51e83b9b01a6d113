/**
 * The endpoint of a disk: the NBD server that QEMU mirrors one disk into (native/disk), a thread of this process, and the journal
 * of what was written. It keeps no copy of the disk, and answers no read. QEMU sees a write completed when the journal has it; if
 * the journal is full, the write waits until something is taken or the mode becomes `drop`.
 */
import { addon } from '../memory/native.ts'
import type { DiskHandle } from '../memory/native-disk.ts'

export interface DiskEndpointOptions {
  /** Of the unix socket, at most 107 bytes; a socket that was there is replaced. */
  path: string
  /** Size of the disk. */
  bytes: number
  /** Of both lists together; a write that is larger is taken when they are empty. */
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
  /** Requests that were answered. */
  requests: number
}

const statCount = 12

export class DiskEndpoint {
  private readonly handle: DiskHandle

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
   * Moves records (records.ts) into `into`, which has 17 bytes or more; the last one is split where it does not fit.
   * @returns the bytes used; 0: the list is empty
   */
  take(into: Uint8Array, sealed: boolean): number {
    return addon.diskTake(this.handle, into, sealed)
  }

  get stats(): DiskStats {
    const results = new Float64Array(statCount)
    addon.diskStats(this.handle, results)
    const [connected, connections, currentBytes, sealedBytes, writes, writtenBytes] =
      results as unknown as Six
    const [equalBytes, zeroBytes, flushes, waitingMs, recording, requests] = results.subarray(
      6,
    ) as unknown as Six
    return {
      connected: connected === 1,
      connections,
      currentBytes,
      sealedBytes,
      writes,
      writtenBytes,
      equalBytes,
      zeroBytes,
      flushes,
      waitingMs,
      mode: recording === 1 ? 'record' : 'drop',
      requests,
    }
  }

  /** Ends the server and removes the socket; twice is once. */
  close(): void {
    addon.diskClose(this.handle)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

type Six = [number, number, number, number, number, number]
