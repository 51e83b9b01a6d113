/**
 * Loads the native addon and types it. Only the rooms' own wrappers call it (region.ts, capture.ts, ...): they validate,
 * the addon computes. What each function takes is said here once; C checks again what memory safety needs.
 */
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { commandFor } from '../built.ts'
import { setting } from '../environment.ts'
import { SubpageError } from '../errors.ts'
import { packageRoot } from '../package-root.ts'
import { foreignBuild } from './foreign-build.ts'
import type {
  CaptureArguments,
  HashArguments,
  PluginRunsArguments,
  ReduceArguments,
  RestoreArguments,
  ShadowArguments,
} from './native-arguments.ts'
import type { DiskAddon } from './native-disk.ts'

export { packageRoot }

declare const opaque: unique symbol

/** Mapped memory; native/addon/region.c. */
export interface RegionHandle {
  readonly [opaque]: 'region'
}

/** native/addon/reduce.c. */
export interface ReducerHandle {
  readonly [opaque]: 'reducer'
}

export interface RestorerHandle {
  readonly [opaque]: 'restorer'
}

/** A content store; native/addon/store.c. */
export interface StoreHandle {
  readonly [opaque]: 'store'
}

/** A mapped pause lease; native/addon/lease.c. */
export interface LeaseHandle {
  readonly [opaque]: 'lease'
}

/** A mapped channel through which accesses are forgotten; native/addon/forget.c. */
export interface ForgetHandle {
  readonly [opaque]: 'forget'
}

export interface Addon extends DiskAddon {
  /** Makes a file with all its room. Resolves with 0 or an errno; nothing is left then. */
  reserveFile(path: string, bytes: number): Promise<number>
  regionMap(path: string, writable: boolean, bytes: number): RegionHandle
  regionAnonymous(bytes: number): RegionHandle
  regionBytes(region: RegionHandle): number
  regionRead(region: RegionHandle, offset: number, into: Uint8Array): void
  regionWrite(region: RegionHandle, offset: number, from: Uint8Array): void
  regionClose(region: RegionHandle): void

  capture(...args: CaptureArguments): boolean
  captureAsync(...args: CaptureArguments): Promise<boolean>
  /** Remembers whole pages from `first` on by their hashes. @param pages of the guest */
  hashedSet(
    table: RegionHandle,
    ...args: [...ShadowArguments, pages: number, first: number, content: Uint8Array]
  ): void
  /** Index of the first line in which memory and shadow differ; -1 none. */
  shadowDifference(ram: RegionHandle, shadow: RegionHandle, ...form: ShadowArguments): number
  shadowDifferenceAsync(ram: RegionHandle, shadow: RegionHandle, ...form: ShadowArguments): Promise<number>
  /** Results: codec, whole, pages. Returns what is wrong, or undefined. */
  checkDelta(delta: Uint8Array, imagePages: number, results: Float64Array): string | undefined
  /** How many runs there are; `pairs` has room for one for each page of the delta, which was checked. */
  deltaPages(delta: Uint8Array, pairs: Uint32Array): number
  apply(image: RegionHandle, delta: Uint8Array, results: Float64Array): string | undefined
  applyAsync(image: RegionHandle, delta: Uint8Array, results: Float64Array): Promise<string | undefined>
  cpuPath(): string
  selectCpu(name: string): boolean

  /** The state of one direction of one connection; native/core/reduce.h. One operation at a time. */
  reducerNew(
    pages: number,
    dictionary: boolean,
    sharing: boolean,
    similar: boolean,
    blockBytes: number,
  ): ReducerHandle
  reducerBegin(reducer: ReducerHandle, references: boolean): void
  /** False: a range outside the memory. */
  reducerInclude(reducer: ReducerHandle, pairs: Uint32Array, runs: number): boolean
  reducerBytes(reducer: ReducerHandle): number
  reduce(...args: ReduceArguments): string | undefined
  reduceAsync(...args: ReduceArguments): Promise<string | undefined>
  restorerNew(): RestorerHandle
  restore(...args: RestoreArguments): string | undefined
  restoreAsync(...args: RestoreArguments): Promise<string | undefined>
  /** Results: bytes of page numbers, 32 bits each, for reductionRead. */
  restoreReferences(
    restorer: RestorerHandle,
    reduced: Uint8Array,
    imagePages: number,
    bytesMax: number,
    results: Float64Array,
  ): string | undefined
  restorerLearn(restorer: RestorerHandle, delta: Uint8Array): void
  /** Copies what the last operation made; `into` must have its length. */
  reductionRead(handle: ReducerHandle | RestorerHandle, into: Uint8Array): void
  reductionDigest(handle: ReducerHandle | RestorerHandle): bigint
  reductionClose(handle: ReducerHandle | RestorerHandle): void

  hashBlocks(...args: HashArguments): boolean
  hashBlocksAsync(...args: HashArguments): Promise<boolean>
  /** Eight bytes, little endian, at `at` of `into`. */
  checksum64(first: Uint8Array, second: Uint8Array, into: Uint8Array, at: number): void
  /** Index of the first line that differs; -1 none, -2 a range outside the regions. */
  compareRegions(a: RegionHandle, b: RegionHandle, pairs: Uint32Array, runs: number): number
  compareRegionsAsync(a: RegionHandle, b: RegionHandle, pairs: Uint32Array, runs: number): Promise<number>

  /** Two words of changed lines into `maps` and a count into `byteCounts` per page. False: a range outside. */
  pageChanges(
    ram: RegionHandle,
    shadow: RegionHandle,
    pairs: Uint32Array,
    runs: number,
    update: boolean,
    maps: Uint32Array,
    byteCounts: Uint16Array,
  ): boolean
  /** The first data of a file at or after `from`, as [start, end) in `span`; false when only a hole is left. */
  fileData(fd: number, from: number, span: Float64Array): boolean
  /** Locks the file until the descriptor is closed; false when another open file holds it. */
  lockFile(fd: number): boolean
  /** Whether something keeps this host's clock right; null where the kernel does not tell. */
  clockSynchronized(): boolean | null
  /** Whether another open file holds a lock of fcntl(2) on a byte of the range. */
  rangeLocked(fd: number, from: number, bytes: number): boolean

  /** For benchmarks: what capture is compared with; native/core/reference.c. */
  copyPages(to: RegionHandle, from: RegionHandle, pairs: Uint32Array, runs: number): boolean
  /** The bytes that the pipe produced. */
  xbzrlePipe(
    cache: RegionHandle,
    ram: RegionHandle,
    pairs: Uint32Array,
    runs: number,
    out: Uint8Array,
  ): number

  readonly leaseFree: bigint
  readonly leaseExpired: bigint
  readonly leaseLocked: bigint
  leaseOpen(path: string): LeaseHandle
  leaseTake(lease: LeaseHandle, holdMs: number): bigint
  leaseRenew(lease: LeaseHandle, held: bigint, holdMs: number): bigint
  leaseClear(lease: LeaseHandle, held: bigint): boolean
  /** Whether `held` was in force until now; the caller has the lock of the file. */
  leaseEnter(lease: LeaseHandle, held: bigint): boolean
  leaseLeave(lease: LeaseHandle, holdMs: number): bigint
  leaseWord(lease: LeaseHandle): bigint
  leaseExpiries(lease: LeaseHandle): bigint
  /** Until when packets may leave QEMU, by speakNowMs; Infinity: freely, 0: not at all. */
  leaseSpeak(lease: LeaseHandle, untilMs: number): void
  leaseSilenced(lease: LeaseHandle): number
  /** CLOCK_BOOTTIME. */
  speakNowMs(): number
  /** Names of nodes, each followed by NUL. */
  leaseMirrors(lease: LeaseHandle, names: string): void
  leaseMirrorsCut(lease: LeaseHandle): number
  leaseFlushedUs(lease: LeaseHandle): number
  leaseClose(lease: LeaseHandle): void

  /** Pairs of (first page, page count), in order; native/addon/pagemap.c. */
  pagemapScan(
    fd: number,
    among: Uint32Array,
    runs: number,
    base: number,
    category: number,
    rearm: boolean,
    threads: number,
  ): Uint32Array
  readonly forgetFileBytes: number
  readonly forgetRunCountMax: number
  forgetOpen(path: string): ForgetHandle
  /** Returns the number of the request; the one before must be done. */
  forgetPost(channel: ForgetHandle, pairs: Uint32Array, runs: number): number
  /** Results: requested, done, errno, nanoseconds, pages. */
  forgetStatus(channel: ForgetHandle, results: Float64Array): void
  forgetClose(channel: ForgetHandle): void
  /** Empty when accesses can be forgotten here without harm to write tracking, else the reason. */
  forgetProbe(): string
  /** What it costs to read a page that was forgotten, in nanoseconds on this host; 0 when that failed. */
  forgetFaultNs(): number
  /** What the first write to a page costs after its write mark was taken away, in nanoseconds; 0 when that failed. */
  writeFaultNs(): number
  /** The layout of the plugin's share as C has it; lab/src/plugin/layout.ts has it too. */
  pluginLayout(): Record<string, number>
  /** Limits of native/core; src/limits.ts has them too. */
  coreLimits(): Record<string, number>
  /** Runs of pages from `from` on whose word is not 0; results[0]: where to go on. `pairs` has room for 33 runs at least. */
  pluginFindWords(...args: PluginRunsArguments): number
  /** Takes the words of these pages, two numbers each. */
  pluginTakeWords(
    share: RegionHandle,
    offset: number,
    pages: number,
    pairs: Uint32Array,
    runs: number,
    maps: Uint32Array,
  ): void
  /** As pluginFindWords, for parts with a bit per page; takes what it finds. */
  pluginTakeBits(...args: PluginRunsArguments): number
  /** Takes 16-bit numbers, one per page. */
  pluginTakeCounts(share: RegionHandle, offset: number, pages: number, into: Uint8Array): void
  /** Empty when write tracking works here, else the reason. */
  userfaultProbe(): string
  pidfdOpen(pid: number): number
  pidfdExited(fd: number): boolean
  /** A file that is only memory. Returns its descriptor, to be closed with fs.closeSync. */
  memoryFile(name: string): number
  /** Throws with code EINVAL where the file system cannot. */
  exchangeFiles(one: string, other: string): void
  /** One message to a unix datagram socket; `@NAME` is an abstract one. @throws Error EAGAIN when the receiver does not read */
  sendDatagram(path: string, text: string): void
  /** Who listens at the other end of a unix socket. */
  peerPid(fd: number): number
  /** Over a unix socket, with a byte; the other process gets an open file of its own. */
  sendDescriptor(socket: number, fd: number, mark: number): void
  /** The caller's to close; results: the byte. -1: nothing has come yet, -2: nothing will. */
  receiveDescriptor(socket: number, results: Float64Array): number

  /** The content store (native/core/store.h). Guests are numbers; what ends in `errno` says 0 or why it failed. */
  storeOpen(
    directory: string,
    swap: string,
    pagesMax: number,
    indexPages: number,
    shape: Uint32Array,
  ): StoreHandle
  storeAttach(store: StoreHandle, name: string, ramPath: string, domain: number): number
  storeForget(store: StoreHandle, name: string): Promise<Errno>
  /** Flags: 1 patch, 2 only what becomes smaller, 4 trim. Results: filled, shared, patched, whole, holes, failed, left. */
  storeEvict(...args: [...StoreRuns, flags: number, pagesMax: number, results: Float64Array]): Promise<Errno>
  /** Results: pages moved. */
  storeFetch(...args: [...StoreRuns, flags: number, results: Float64Array]): Promise<Errno>
  /** 16 bytes into `into` for every page of the runs. */
  storeHash(...args: [...StoreRuns, into: Uint8Array]): Promise<Errno>
  storeDrop(...args: StoreRuns): Errno
  /** `into` has the length of a page. */
  storeRead(store: StoreHandle, guest: number, page: number, into: Uint8Array): Errno
  /** A byte for each page: 0 not in the store, 1 filled, 2 whole, 3 packed, 4 patched, 5 swapped. */
  storeKinds(store: StoreHandle, guest: number, into: Uint8Array): Errno
  /** Results: seen, packed, swapped, wrapped, joined. */
  storeSweep(
    store: StoreHandle,
    objectsMax: number,
    agePack: number,
    ageSwap: number,
    results: Float64Array,
  ): Promise<Errno>
  /** Results: pages, resident, holes, filled, shared, patched, packed, swapped, whole, bytes. */
  storeShare(store: StoreHandle, guest: number, results: Float64Array): Errno
  /** `cells` has a row of six for each cell: filled, shared, patched, packed, swapped, whole. */
  storeMap(store: StoreHandle, guest: number, cellPages: number, cells: Uint32Array): Errno
  /** Results: objects, pool bytes, swap bytes, bytes of its books. */
  storeTotals(store: StoreHandle, results: Float64Array): void
  storeClose(store: StoreHandle): void
  /** Serves the page faults of a process; mappings: address, bytes, first page each. */
  pagerStart(
    store: StoreHandle,
    guest: number,
    pidfd: number,
    uffd: number,
    mappings: Float64Array,
    count: number,
  ): void
  /** `serving`: another process will serve; without it every page must be back (EBUSY). */
  pagerStop(store: StoreHandle, guest: number, serving: boolean): Errno
  /** Results as src/density/pager.ts reads them; false without a pager. */
  pagerRead(store: StoreHandle, guest: number, results: Float64Array): boolean
  /** Results: how many pages were in the store, then kind, access, answer and rebuild of each, in nanoseconds. */
  pagerTimeAccesses(store: StoreHandle, guest: number, ...args: AccessArguments): Promise<Errno>

  /**
   * Extents: descriptor (-1: in `memory`), image, offset, pages each; shape: k, s, c; depth 0 share, 1 and patch, 2 and pack. Results as
   * src/density/survey.ts reads them. Returns 0 or an errno.
   */
  survey(
    extents: Float64Array,
    extentCount: number,
    imageCount: number,
    shape: Uint32Array,
    depth: number,
    memoryBytes: number,
    results: Float64Array,
    memory: Uint8Array,
  ): Promise<number>
}

type Errno = number
type AccessArguments = [ramFd: number, pages: Uint32Array, results: Float64Array]
type StoreRuns = [store: StoreHandle, guest: number, pairs: Uint32Array, runs: number]

/**
 * The addon. Where it cannot load, every use throws ADDON_MISSING, while importing this file does not: `subpage check`
 * must be able to say what is missing.
 */
export const addon: Addon = load(join(packageRoot, 'build/native/subpage.node'))

export function load(path: string): Addon {
  try {
    // Loaded early: with this file.
    return withForcedCpu(createRequire(import.meta.url)(path) as Addon, setting('SUBPAGE_CPU'))
  } catch (cause) {
    const said = cause instanceof Error ? cause.message.split('\n')[0] : String(cause)
    const reason = foreignBuild(path) ?? said
    return failing(
      new SubpageError(
        'ADDON_MISSING',
        `cannot load ${path}: ${reason}; \`${commandFor('native')}\` builds it`,
        { cause },
      ),
    )
  }
}

/** A path that was asked for and is not there must not be replaced in silence: figures would carry a wrong name. */
function withForcedCpu(loaded: Addon, forced: string | undefined): Addon {
  if (!forced || loaded.selectCpu(forced)) return loaded
  return failing(
    new SubpageError('BAD_ARGUMENT', `SUBPAGE_CPU=${forced}: the best CPU path here is ${loaded.cpuPath()}`),
  )
}

function failing(error: SubpageError): Addon {
  return new Proxy({} as Addon, {
    get() {
      throw error
    },
  })
}
