/** The map of changed lines: a byte that names the non-zero bytes of a 64-bit map, then those bytes. */
import { lineBytes, linesPerPage } from '../../../src/memory/page.ts'
import { bitsOf, Malformed, type Reader, setBits } from './bytes.ts'

/** The lines of the blocks in which two pages differ, ascending. */
export function changedLines(before: Uint8Array, after: Uint8Array, grainBytes = lineBytes): number[] {
  return Array.from({ length: linesPerPage }, (_, line) => line).filter((line) => {
    const start = Math.floor((line * lineBytes) / grainBytes) * grainBytes
    return before.subarray(start, start + grainBytes).some((byte, i) => byte !== after[start + i])
  })
}

export function lineOf(page: Uint8Array, line: number): Uint8Array {
  return page.subarray(line * lineBytes, (line + 1) * lineBytes)
}

export function encodeLineMap(lines: readonly number[]): number[] {
  const map = [0, 1, 2, 3, 4, 5, 6, 7].map((group) =>
    bitsOf([0, 1, 2, 3, 4, 5, 6, 7].map((bit) => lines.includes(8 * group + bit))),
  )
  return [bitsOf(map.map((byte) => byte !== 0)), ...map.filter((byte) => byte !== 0)]
}

/** @param top the first byte, which has been read */
export function decodeLineMap(top: number, reader: Reader): number[] {
  return setBits(top).flatMap((group) => {
    const byte = reader.byte()
    if (byte === 0) throw new Malformed('line map')
    return setBits(byte).map((bit) => 8 * group + bit)
  })
}
