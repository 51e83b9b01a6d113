/** Readers of what /proc says about CPU, memory and privileges: pure functions of the text. Source: proc(5). */

/** Bits of CapEff; linux/capability.h. */
export const capability = { netAdmin: 12n, sysPtrace: 19n } as const

/** CPU flags of /proc/cpuinfo, those of its first processor. */
export function parseCpuFlags(cpuinfo: string): Set<string> {
  const flags = /^flags\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? ''
  return new Set(flags.split(/\s+/).filter(Boolean))
}

export function parseCpuModel(cpuinfo: string): string {
  return /^model name\s*:\s*(.*)$/m.exec(cpuinfo)?.[1]?.trim() ?? 'unknown CPU'
}

/** Bytes of a field of /proc/meminfo, such as MemAvailable; undefined where the kernel has no such field. */
export function parseMeminfo(meminfo: string, field: string): number | undefined {
  const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(meminfo)?.[1]
  return kib === undefined ? undefined : Number(kib) * 1024
}

/** Whether the effective capabilities in /proc/PID/status include this bit. */
export function hasCapability(status: string, bit: bigint): boolean {
  const mask = /^CapEff:\s*([0-9a-f]+)$/im.exec(status)?.[1]
  return mask !== undefined && ((BigInt(`0x${mask}`) >> bit) & 1n) === 1n
}
