/**
 * Memory of a guest beside its RAM: what a screen shows, firmware variables, ROMs. The shim has QEMU put it into the RAM file, behind the
 * RAM (native/shim/aux.c), so that it is watched, sent and kept as RAM is.
 */
import { SubpageError } from '../errors.ts'
import { readShimStatus } from '../tracking/shim.ts'
import type { Machine } from './options.ts'

/** All memory of a guest, in one file. */
export const memoryBytes = ({ ramBytes, aux = [] }: Machine) =>
  aux.reduce((sum, bytes) => sum + bytes, ramBytes)

/** Bytes of each block in the RAM file, in order; none when QEMU runs without the shim. */
export function auxBlocks(shimStatusPath: string): number[] {
  return readShimStatus(shimStatusPath)?.aux ?? []
}

/** @throws SubpageError PEER_MISMATCH when the blocks of this host's QEMU are not those of the primary's */
export function assertSameBlocks(found: readonly number[], wanted: readonly number[]): void {
  if (found.length === wanted.length && found.every((bytes, n) => bytes === wanted[n])) return
  throw new SubpageError(
    'PEER_MISMATCH',
    `the memory of the guest's devices and firmware is not laid out as on the primary (${say(found)} here, ${say(wanted)} there): install the same packages on both: QEMU, its firmware, subpage`,
  )
}

const say = (blocks: readonly number[]) =>
  blocks.length === 0
    ? 'none'
    : `${blocks.length} blocks of ${blocks.map((bytes) => bytes / 1024).join(', ')} KiB`

/** Blocks that a standby can do without: read-only for the guest, the same on both hosts. */
const harmless = [/^pc\.(bios|rom)$/, /^\/rom@/, /\.rom$/, /\/rom$/]

/**
 * Names of blocks with contents of their own that are not in the RAM file, which a standby would lack.
 * @param info QEMU's `info ramblock`
 * @param inFile bytes of those in the file
 */
export function blocksLeftOut(info: string, inFile: readonly number[]): string[] {
  const known = [...inFile]
  return blocksOf(info)
    .filter(({ bytes }) => {
      const at = known.indexOf(bytes)
      if (at >= 0) known.splice(at, 1)
      return at < 0
    })
    .map(({ name }) => name)
    .filter((name) => !harmless.some((pattern) => pattern.test(name)))
}

/** Name, size of a page with its unit, offset, used, total. */
const namedFields = 6

/** Without the guest's RAM. */
function blocksOf(info: string): { name: string; bytes: number }[] {
  return (
    info
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      // A block without a name is one that nobody uses: of libvirt, beside the RAM that is ours.
      .filter((fields) => fields.length === namedFields && !/^(subpage-)?ram$/.test(fields[0]!))
      .map((fields) => ({ name: fields[0]!, bytes: Number(fields.at(-1)) }))
  )
}
