/**
 * What is sent when changed blocks go whole, for block sizes from a line to a page (fine-grained identification of dirty
 * regions, Lu and Chiueh, DSN 2009): from the maps of changed lines, with a map of blocks and a gap for each page.
 */

import { lineBytes, linesPerPage, pageBytes } from 'subpage/memory/page'
import { PageChanges } from '../page-changes.ts'
import { play, RecordedWrites, type Recording } from './recorded-writes.ts'

export const blockSizes = [64, 128, 256, 1024, 4096] as const

/** Bytes of all epochs, by block size. */
export async function changedBlocks(recording: Recording, epochMs: number): Promise<Record<number, number>> {
  using ram = recording.copy()
  using shadow = recording.copy()
  const writes = new RecordedWrites()
  const changes = new PageChanges()
  const bytes = Object.fromEntries(blockSizes.map((size) => [size, 0]))
  await play(recording, ram, writes, epochMs, {
    within: async () => undefined,
    end: async () => {
      const dirty = writes.harvest()
      changes.compare(ram, shadow, dirty, true)
      for (let page = 0; page < dirty.pageCount; page++) {
        const map = BigInt(changes.maps[2 * page]!) | (BigInt(changes.maps[2 * page + 1]!) << 32n)
        if (map !== 0n) for (const size of blockSizes) bytes[size]! += pageCost(map, size)
      }
    },
  })
  return bytes
}

function pageCost(map: bigint, size: number): number {
  const lines = size / lineBytes
  const block = (1n << BigInt(lines)) - 1n
  let blocks = 0
  for (let at = 0; at < linesPerPage; at += lines) if ((map >> BigInt(at)) & block) blocks++
  return 1 + Math.ceil(pageBytes / size / 8) + blocks * size
}
