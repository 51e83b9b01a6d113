/**
 * The writable disks of a guest, as replication sees them: on the primary what is written to them, from a moment on; on the
 * standby the copies. Writes travel as records (disk/records.ts), in `disk` frames: number of the disk u32, form u32, records.
 */
import type { ChunkRange } from '../disk/records.ts'
import type { JournalledWrites } from '../disk/redo-journal.ts'

/** Before the records of a `disk` frame. */
export const diskHeaderBytes = 8
/** How the records are there: as they are, or reduced (delta/reduce.ts). */
export const diskForm = { plain: 0, reduced: 1 } as const

/** Marks what a guest writes to a disk of this host (disk/chunk-map.ts); disk-lineages.ts says what for. */
export interface WrittenChunks {
  /** Of the disk and a copy; empty: none. */
  readonly lineage: string
  inherit(lineage: string): void
  forget(): void
  /** A bit for each chunk of 64 KiB, the first one the lowest of its byte. */
  marked(): Uint8Array
  /** What is written from now on is marked apart, unless something is still parted. */
  part(): boolean
  readonly parted: boolean
  dropParted(): void
  clear(): void
}

/** Of a copy: XXH3-128 of each 64 KiB; or which of these may differ from the disk, beside those that the disk's map has marked. */
export type CopyKnowledge = { hashes: Uint8Array } | { changed: Uint8Array }

/** The disks of a guest that runs here. What is written while nothing is fed is not kept. */
export interface GuestDisks {
  /** In bytes, in the order of the guest's description. */
  readonly sizes: readonly number[]
  /** Of each; undefined: it has none. */
  readonly maps: readonly (WrittenChunks | undefined)[]
  /** All that was there before has been fed. */
  readonly complete: boolean
  /** Of what was there before, bytes that have been fed, and that are to be. */
  readonly fedBytes: number
  readonly feedBytes: number
  /** Bytes that wait to be taken. */
  readonly waitingBytes: number
  /** A write of the guest's waits for room. */
  readonly urgent: boolean
  /**
   * Begins to feed what is on the disks and differs from the standby's, and whatever is written.
   * @param known of the standby's copy of each disk
   * @param failed called at most once, when nothing more comes
   * @throws SubpageError DISK_FAILED
   */
  begin(known: CopyKnowledge[], failed: (why: Error) => void): Promise<void>
  /** What was written until now is an epoch's; the guest stands still. */
  seal(): void
  /** The epoch goes on after all. */
  unseal(): void
  /** Moves records into `into`. @returns bytes; 0: there are none */
  take(disk: number, into: Uint8Array, sealed: boolean): number
  /** At once: no write waits for us any more. */
  drop(): void
  /** Resolves when the guest's disks are as if they had never been fed. */
  end(): Promise<void>
  /** Opens them for reading; the guest runs on. @throws SubpageError DISK_FAILED */
  open(): Promise<DiskReader>
}

/** Reads what the guest would. */
export interface DiskReader extends AsyncDisposable {
  /** Why a disk cannot be read, for people; undefined: it can. */
  missing(disk: number): string | undefined
  /** XXH3-128 of each 64 KiB in the range. @throws SubpageError DISK_FAILED */
  hashes(disk: number, range: ChunkRange): Promise<Uint8Array>
  /** The content of the range. @throws SubpageError DISK_FAILED */
  read(disk: number, range: ChunkRange): Promise<Uint8Array>
}

export const noDisks: GuestDisks = {
  sizes: [],
  maps: [],
  complete: true,
  fedBytes: 0,
  feedBytes: 0,
  waitingBytes: 0,
  urgent: false,
  begin: async () => undefined,
  seal: () => undefined,
  unseal: () => undefined,
  take: () => 0,
  drop: () => undefined,
  end: async () => undefined,
  open: async () => ({
    missing: () => undefined,
    hashes: async () => new Uint8Array(),
    read: async () => new Uint8Array(),
    [Symbol.asyncDispose]: async () => undefined,
  }),
}

/** Where a standby puts writes of the coming checkpoint that are more than it holds in memory. */
export interface WritesSpill {
  /** What is in it. */
  readonly bytes: number
  /** @throws the file system's own error */
  put(content: Uint8Array): Promise<{ load(): Promise<Uint8Array>; release(): void }>
}

/** Of a standby whose guest has no disks. */
export const noSpill: WritesSpill = {
  bytes: 0,
  put: async (content) => ({ load: async () => content, release: () => undefined }),
}

/** Where a standby keeps what it has acknowledged and the disks may not have yet, so that it outlasts a loss of power. */
export interface DiskJournal {
  /** Resolves when the writes are on stable storage. */
  append(epoch: number, writes: readonly JournalledWrites[]): Promise<void>
  /** What was applied to the disks is on stable storage, and nothing is kept any more. */
  clear(): Promise<void>
  /** Nothing is kept any more, and what was is on the disks. */
  remove(): Promise<void>
}

/** Of a standby whose guest has no disks. */
export const noJournal: DiskJournal = {
  append: async () => undefined,
  clear: async () => undefined,
  remove: async () => undefined,
}

/** A standby's copy of a disk. */
export interface DiskImage {
  readonly bytes: number
  /** For people. */
  readonly path: string
  /** By subpage, for this guest. */
  readonly made: boolean
  readonly map: WrittenChunks | undefined
  /** Writes records, which have been checked. @param from where they begin in `payload` */
  apply(payload: Uint8Array, from: number): Promise<void>
  /** XXH3-128 of each 64 KiB, 16 bytes each. @param range without it, of all */
  hashes(range?: ChunkRange): Promise<Uint8Array>
  /** Resolves when what was applied outlasts a loss of power. */
  sync(): Promise<void>
}
