/** What the longer functions of the addon take (native.ts), in order. */
import type { ReducerHandle, RegionHandle, RestorerHandle } from './native.ts'

/** Results: bytes, run, offset, pages, changedPages, changedLines, changedBytes. False: a range outside the memory. */
export type CaptureArguments = [
  ram: RegionHandle,
  shadow: RegionHandle,
  pairs: Uint32Array,
  runs: number,
  codec: number,
  whole: boolean,
  out: Uint8Array,
  run: number,
  offset: number,
  results: Float64Array,
  changed: Uint8Array | undefined,
  ...shadow: ShadowArguments,
]

export type PluginRunsArguments = [
  share: RegionHandle,
  offset: number,
  pages: number,
  from: number,
  pairs: Uint32Array,
  results: Float64Array,
]
/** What a shadow is (native/core/core.h): the slot of each page in a cache, the seed of hashes; neither: a full copy. */
export type ShadowArguments = [blockLines: number, slots: Uint32Array | undefined, seed: bigint | undefined]

/** Results: bytes made (0: send the delta as it is), lines, dictionary lines, shared lines, similar pages, body bytes. */
export type ReduceArguments = [
  reducer: ReducerHandle,
  delta: Uint8Array,
  shadow: RegionHandle | undefined,
  method: number,
  results: Float64Array,
]

/** Results: bytes made. Returns what is wrong, or undefined. */
export type RestoreArguments = [
  restorer: RestorerHandle,
  reduced: Uint8Array,
  image: RegionHandle,
  bytesMax: number,
  results: Float64Array,
]

/** 16 bytes into `out` for every block. False: a range outside the region. */
export type HashArguments = [
  region: RegionHandle,
  pairs: Uint32Array,
  runs: number,
  blockBytes: number,
  out: Uint8Array,
]
