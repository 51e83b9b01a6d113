/** What the writes to a disk took on their way to a standby, by what was done to them. All in bytes, over all connections. */
import type { ReducedWrites } from '../delta/reduce.ts'

export interface DiskTraffic {
  /** Payloads of frames. All others together are what the guest wrote, but for what it wrote again before it was sent. */
  wireBytes: number
  /** Equal to the guest's memory, as the standby has it or is given it with the same checkpoint: sent as a reference. */
  sharedBytes: number
  /** Lines of 64 bytes that were sent lately: sent as codes. */
  dictionaryBytes: number
  /** Sent as a kind or a length. */
  zeroBytes: number
  /** Sent as content, compressed. */
  compressedBytes: number
  /** Sent as it is. */
  plainBytes: number
}

export const noTraffic = (): DiskTraffic => ({
  ...{ wireBytes: 0, sharedBytes: 0, dictionaryBytes: 0 },
  ...{ zeroBytes: 0, compressedBytes: 0, plainBytes: 0 },
})

/** @param bytes of the records @param reduced undefined: they went as they are */
export function addTraffic(
  to: DiskTraffic,
  bytes: number,
  wireBytes: number,
  reduced: Omit<ReducedWrites, 'payload'> | undefined,
): void {
  to.wireBytes += wireBytes
  if (!reduced) {
    to.plainBytes += bytes
    return
  }
  to.sharedBytes += reduced.sharedBytes
  to.dictionaryBytes += reduced.dictionaryBytes
  to.zeroBytes += reduced.zeroBytes
  if (reduced.method === 'off') to.plainBytes += reduced.contentBytes
  else to.compressedBytes += reduced.contentBytes
}
