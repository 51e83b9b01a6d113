/** The CPU's vector instructions, which capture, apply and hashing choose among at run time. */
import { readFileSync } from 'node:fs'
import { type HostItem, item } from './item.ts'
import { parseCpuFlags, parseCpuModel } from './proc.ts'

const telling = { avx2: 'AVX2', avx512f: 'AVX-512', avx512_vbmi2: 'VBMI2' }

export function checkCpu(): HostItem[] {
  const cpuinfo = readFileSync('/proc/cpuinfo', 'utf8')
  const flags = parseCpuFlags(cpuinfo)
  const has = Object.entries(telling).flatMap(([flag, name]) => (flags.has(flag) ? [name] : []))
  const found = `${parseCpuModel(cpuinfo)}: ${has.join(', ') || 'none of AVX2, AVX-512, VBMI2'}`
  const purpose = 'finds and packs changed lines at the speed of memory'
  return [
    flags.has('avx2')
      ? item('CPU features', purpose, found)
      : item('CPU features', purpose, found, {
          otherwise: 'degraded',
          remedy:
            'a scalar path does the work, more slowly; inside a virtual machine, ask for the CPU model "host"',
        }),
  ]
}
