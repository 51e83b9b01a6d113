/**
 * What replication needs of a hypervisor, and nothing more. `qemu/` implements it; another hypervisor is one more
 * folder. The order in which these are called is the spine: see checkpoint.ts.
 */
import type { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'
import type { Tracker, TrackerChoice } from '../tracking/tracker.ts'
import type { GuestDisks } from './disks.ts'

/** What a standby must be told, and must agree to, before it can take a guest over. */
export interface GuestDescription {
  /** Unique for ever; the name may be used again. */
  id: string
  name: string
  /** All that the image holds: its RAM, and the memory of its devices. */
  memoryBytes: number
  /** Sizes of its writable disks, in an order that both hosts know. */
  diskBytes: number[]
  /** Opaque to replication: the hypervisor's own words for the machine; equal on both sides. */
  hypervisor: Record<string, unknown>
}

/**
 * Why a guest no longer runs. Only `died` is a reason for a failover; `superseded` is a copy that was ended because
 * another host goes on with the guest.
 */
export type GuestEnd = {
  how: 'died' | 'powered-off' | 'stopped' | 'panicked' | 'superseded'
  detail: string
}

/** A guest that runs here: the source of checkpoints. */
export interface Guest {
  readonly description: GuestDescription
  readonly ram: Region
  readonly disks: GuestDisks
  /** Settles once, when the guest no longer runs. */
  readonly ended: Promise<GuestEnd>
  /** Whether it runs, as far as can be seen at this moment. */
  readonly alive: boolean
  /** Bytes the guest has written on its console so far. */
  readonly consoleBytes: number
  /** A pause that lasts longer is broken: the guard lets the guest run again. */
  readonly pauseMsMax: number
  /** Pages that may be other than zeros, as far as that is known without a look at them: all that was ever written. */
  dataPages(): PageRanges
  /** Starts to watch which pages the guest writes. @throws SubpageError TRACKER_UNAVAILABLE */
  track(choice: TrackerChoice): Tracker
  /**
   * Stops the virtual CPUs. Resolves when they stand still; the device state is being written meanwhile.
   * @param holdMs the guard lets the guest run again if the pause lasts longer
   */
  pause(holdMs?: number): Promise<Pause>
  /** Ends this copy at once: another host goes on with the guest. */
  supersede(detail: string): void
  /** From now on what the guest sends waits for a commit. */
  holdOutputs(): Promise<void>
  /** Lets everything out that waits, and holds nothing back any more. */
  freeOutputs(): Promise<void>
  /**
   * Releases what the guest had sent before the last pause: that checkpoint is committed.
   * @param untilMs by the clock: what has not left by then must not leave, even if the hypervisor comes to it later
   */
  releaseOutputs(untilMs: number): Promise<void>
  /** Whether the guest has sent anything since the last pause. Undefined: that cannot be told for its network cards. */
  outputPending(): boolean | undefined
  /**
   * What the machine that wrote this device state has more or less than one that is made of `parts`, which could not load it, for
   * people; undefined: it fits. Costs next to nothing.
   */
  misfit(deviceState: Uint8Array, parts: readonly string[]): Difference | undefined
  /** The same, of the machine as it is now; it stands still for a moment. */
  misfitNow(parts: readonly string[]): Promise<Difference | undefined>
}

/** Between a guest's machine and its standby's. */
export interface Difference {
  /** For people. */
  what: string
  /** While the guest runs nobody can take it back. */
  lasting: boolean
}

/** A guest that stands still for a checkpoint. */
export interface Pause {
  /** Somebody else had stopped the guest before: it stands still after the pause, too, and so it must where it is taken over. */
  readonly suspended: boolean
  /**
   * Lets the virtual CPUs run again. `valid` is false when the pause was broken from outside before (the guard resumed
   * the guest because we were too slow): then what was read in it may be torn and must not be committed.
   */
  resume(): Promise<{
    valid: boolean
    /** Microseconds for which the guest stood still. */
    pauseUs: number
    /** Microseconds from the request to stop it until it was known to run again: the above, and the way there and back. */
    pausingUs: number
    /** Of these, what flushing the disks took; 0 where that cannot be told. */
    flushUs: number
  }>
  /**
   * Hands the pause to another process for a while, which moves pages of the guest's RAM: the guest stands still until that is done.
   * @param work gets what stands for the pause, and resolves with what stands for it then
   * @throws what `work` throws
   */
  lend(work: (held: bigint) => Promise<bigint>): Promise<void>
  /** The state of the devices in this pause; also while the guest still stands. */
  deviceState(): Promise<Uint8Array>
}

/** A machine of the same kind that waits on the standby, its RAM being the image. */
export interface WaitingGuest {
  /** The image is all zeros, until replication writes to it. */
  readonly blank: boolean
  /** What its machine is made of, in words of the hypervisor. It can load the device state of a machine that is made of the same. */
  readonly parts: readonly string[]
  /** Settles when the waiting process has ended without being asked to. */
  readonly ended: Promise<GuestEnd>
  /**
   * Loads the device state and runs, unless the guest was suspended. The image must hold the same checkpoint.
   * @param begin called when all is loaded, right before the guest runs; if this throws without having called it, the guest
   *   has not run here
   */
  takeOver(deviceState: Uint8Array, suspended: boolean, begin: () => void): Promise<void>
  /** Ends the waiting machine and frees its memory. @param disksToo also the copies of disks that were made for it */
  discard(disksToo: boolean): Promise<void>
}
