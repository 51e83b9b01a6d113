/**
 * Starts QEMU with the plugin that notes the guest's accesses (lab/native/plugin/plugin.c). What it has noted is read with
 * lab/src/plugin/share.ts.
 */
import { SubpageError } from '../errors.ts'
import { labFile } from '../lab.ts'
import { memoryLayout } from './memory-backends.ts'
import { doubleCommas } from './option-syntax.ts'
import type { Machine } from './options.ts'

/** What the plugin can note of a guest's accesses; bits of what it is asked for. */
export const pluginParts = { lines: 1, pml: 2, prl: 4, accesses: 8 } as const
export type PluginPart = keyof typeof pluginParts
export const pluginPartNames = Object.keys(pluginParts) as PluginPart[]

/** @throws SubpageError BAD_ARGUMENT for a machine whose memory map is not known */
export function pluginOption({ type, ramBytes, options, track = [] }: Machine, sharePath: string): string[] {
  if (track.length === 0) return []
  // Where their memory begins follows from their alignment, and from addr=.
  if (memoryLayout(type, options, ramBytes).devices > 0)
    throw new SubpageError('BAD_ARGUMENT', 'cannot track accesses of a machine with memory devices (pc-dimm)')
  const pluginPath = labFile('build/native/plugin.so', `tracking of accesses (${track.join(', ')})`)
  const parts = track.reduce((sum, part) => sum | pluginParts[part], 0)
  return [
    '-plugin',
    `${doubleCommas(pluginPath)},share=${doubleCommas(sharePath)},ram=${ramBytes},low=${lowMemoryBytes(type, ramBytes)},parts=${parts}`,
  ]
}

const gib = 2 ** 30

/**
 * How much of the RAM lies below 4 GiB; the rest begins there, and the RAM file has it right behind. QEMU's hw/i386/pc_q35.c
 * and pc_piix.c, for machines whose `max-ram-below-4g` was left alone.
 * @throws SubpageError BAD_ARGUMENT
 */
function lowMemoryBytes(type: string, ramBytes: number): number {
  const [machine = ''] = type.split(',')
  if (/q35/.test(machine)) return ramBytes >= 2.75 * gib ? 2 * gib : ramBytes
  if (/^(pc|ubuntu|pc-i440fx-.*)$/.test(machine)) return ramBytes >= 3.5 * gib ? 3 * gib : ramBytes
  throw new SubpageError(
    'BAD_ARGUMENT',
    `cannot track accesses of a machine of type ${machine}: use q35 or pc`,
  )
}
