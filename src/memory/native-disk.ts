/** What the addon does for the disks of guests (native/addon/disk.c, disk_records.c); a part of native.ts. */
import type { ReducerHandle, RegionHandle, RestorerHandle } from './native.ts'

declare const opaque: unique symbol

/** The endpoint that a disk is mirrored into. */
export interface DiskHandle {
  readonly [opaque]: 'disk'
}

type Errno = number

type ReduceWritesArguments = [
  reducer: ReducerHandle,
  records: Uint8Array,
  /** Its memory as of the moment that `refer` says. */
  shadow: RegionHandle | undefined,
  /** 0: to nothing, 1: to what the epoch leaves as it is, 2: to all that it leaves. */
  refer: number,
  method: number,
  results: Float64Array,
]
type RestoreWritesArguments = [
  restorer: RestorerHandle,
  reduced: Uint8Array,
  imagePages: number,
  bytesMax: number,
  results: Float64Array,
]

export interface DiskAddon {
  /** Results: bytes, method, lines, known lines, shared lines, bytes of zeros and of no whole block. Returns what is wrong. */
  reduceWrites(...args: ReduceWritesArguments): string | undefined
  reduceWritesAsync(...args: ReduceWritesArguments): Promise<string | undefined>
  /** Results: bytes of records, of fills behind them, and whether these are for after the epoch. Returns what is wrong. */
  restoreWrites(...args: RestoreWritesArguments): string | undefined
  restoreWritesAsync(...args: RestoreWritesArguments): Promise<string | undefined>
  /** False: a fill lies outside of the image or the records, and nothing is filled. */
  fillWrites(records: Uint8Array, fills: Uint8Array, image: RegionHandle): Promise<boolean>
  reducerKnow(reducer: ReducerHandle, pairs: Uint32Array, runs: number, shadow: RegionHandle): void
  /** Listens at once, in the mode `drop`. Throws with the name of the errno. */
  diskOpen(path: string, bytes: number, journalBytesMax: number): DiskHandle
  diskClose(disk: DiskHandle): void
  /** 16 bytes for each chunk of the disk, or none: nothing is known. */
  diskKnow(disk: DiskHandle, hashes: Uint8Array): void
  /** Of the map (native/disk/chunk_map.h) that whatever is written from now on is marked in before, or, with `marks`, by the endpoint. Throws with the name of the errno. */
  diskWatch(disk: DiskHandle, path: string, marks: boolean): void
  /** Once; the descriptor stays the caller's. Throws with the name of the errno. */
  diskSpill(disk: DiskHandle, fd: number, bytesMax: number): void
  /** Up to 16 chunks, which are going to be read. */
  diskBeginFill(disk: DiskHandle, chunk: number, count: number): void
  /** A bit for each chunk that must be read again; 65,536: there is no room yet, and nothing was done. */
  diskFill(disk: DiskHandle, chunk: number, data: Uint8Array): number
  diskRecord(disk: DiskHandle): void
  diskDrop(disk: DiskHandle): void
  diskSeal(disk: DiskHandle): void
  diskUnseal(disk: DiskHandle): void
  /** Bytes used; 0: the list is empty. `into` has 17 bytes or more. Throws with the name of the errno. */
  diskTake(disk: DiskHandle, into: Uint8Array, sealed: boolean): number
  /** Results as src/disk/endpoint.ts reads them. */
  diskStats(disk: DiskHandle, results: Float64Array): void
  /** Results: records. Returns what is wrong, or undefined. */
  checkDisk(payload: Uint8Array, from: number, diskBytes: number, results: Float64Array): string | undefined
  applyDisk(fd: number, payload: Uint8Array, from: number): Promise<Errno>
  syncDisk(fd: number): Promise<Errno>
  /** Begins to, without waiting for it. */
  writeBackDisk(fd: number): Promise<Errno>
  /** 16 bytes into `out` for each chunk; the last one may be shorter. */
  hashChunks(bytes: Uint8Array, out: Uint8Array): void
  /** 16 bytes into `out` for each of `count` chunks from `first` on. ENODATA: the file is shorter than the disk. */
  hashDisk(fd: number, diskBytes: number, first: number, count: number, out: Uint8Array): Promise<Errno>
}
