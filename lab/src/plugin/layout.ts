/**
 * The layout of the file that the QEMU plugin shares with us. The other declaration, with what each field means, is
 * native/plugin/share.h; test/plugin/layout.test.ts holds that both agree.
 */
import { pluginParts } from 'subpage/qemu/plugin'

export const shareMagic = 0x4e4947554c505053n
export const shareFormat = 1
/** Where a count of the PRL model stops. */
export const countMax = 0xff00
export const vcpuCountMax = 256
/** Sizes of the logs that are followed at once, in entries. Intel's log has 512. */
export const logEntries = [128, 256, 512, 1024, 2048, 4096] as const
export type LogEntries = (typeof logEntries)[number]

/** Offsets of fields in the header. */
export const headerAt = {
  magic: 0,
  format: 8,
  parts: 12,
  pages: 16,
  bytes: 24,
  vcpusOffset: 32,
  linesOffset: 40,
  dirtyOffset: 48,
  countsOffset: 56,
  readOffset: 64,
  storedOffset: 72,
  tlbEntries: 80,
  tlbGeneration: 84,
  wanted: 88,
  active: 92,
  outside: 96,
  unknown: 104,
} as const
export const headerBytes = 112

const wholePages = (bytes: number) => Math.ceil(bytes / 4096) * 4096

/** Where the parts are, as the plugin lays them out; 0: it was not asked for. `bytes`: of the whole file. */
export function shareLayout(parts: number, pages: number) {
  const bitBytes = wholePages(Math.ceil(pages / 64) * 8)
  let at = 4096
  const place = (part: number, bytes: number): number => {
    if ((parts & part) !== part) return 0
    at += bytes
    return at - bytes
  }
  const vcpus = place(0, vcpuCountMax * vcpuBytes)
  const lines = place(pluginParts.lines, wholePages(8 * pages))
  const dirty = place(pluginParts.pml, bitBytes)
  const counts = place(pluginParts.prl, wholePages(2 * pages))
  const read = place(pluginParts.accesses, bitBytes)
  const stored = place(pluginParts.accesses, bitBytes)
  return { offsets: { vcpus, lines, dirty, counts, read, stored }, bytes: at }
}

/** Offsets in a vCPU's record: its two logs, and the fields of a log. */
export const vcpuAt = { pml: 0, prl: 80 } as const
export const vcpuBytes = 256
export const logAt = { logged: 0, full: 8, left: 56 } as const
