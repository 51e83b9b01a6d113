/** The readers of /proc, on what kernels really print. */
import { describe, expect, test } from 'vitest'
import {
  capability,
  hasCapability,
  parseCpuFlags,
  parseCpuModel,
  parseMeminfo,
} from '../../../src/qemu/check/proc.ts'

const cpuinfo = `processor\t: 0
model name\t: AMD EPYC 9R14
flags\t\t: fpu avx avx2 avx512f avx512_vbmi2
bugs\t\t: sysret_ss_attrs

processor\t: 1
model name\t: another
flags\t\t: fpu
`

describe('/proc/cpuinfo', () => {
  test('flags and model are those of the first processor', () => {
    expect([...parseCpuFlags(cpuinfo)]).toEqual(['fpu', 'avx', 'avx2', 'avx512f', 'avx512_vbmi2'])
    expect(parseCpuModel(cpuinfo)).toBe('AMD EPYC 9R14')
  })
  test('a CPU without these lines has no flags', () => {
    expect(parseCpuFlags('processor\t: 0\nFeatures\t: fp asimd\n').size).toBe(0)
    expect(parseCpuModel('')).toBe('unknown CPU')
  })
})

describe('/proc/meminfo', () => {
  const meminfo = 'MemTotal:       24561234 kB\nMemFree:          123456 kB\nMemAvailable:   23000000 kB\n'
  test('a field is in bytes', () => expect(parseMeminfo(meminfo, 'MemAvailable')).toBe(23_000_000 * 1024))
  test('an unknown field is undefined', () => expect(parseMeminfo(meminfo, 'Mem')).toBeUndefined())
})

describe('/proc/PID/status', () => {
  test.each([
    ['000001ffffffffff', true, true],
    ['0000000000080000', true, false],
    ['0000000000001000', false, true],
    ['0000000000000000', false, false],
  ])('CapEff %s', (mask, sysPtrace, netAdmin) => {
    const status = `Name:\tnode\nCapPrm:\tffffffffffffffff\nCapEff:\t${mask}\nCapBnd:\tffffffffffffffff\n`
    expect(hasCapability(status, capability.sysPtrace)).toBe(sysPtrace)
    expect(hasCapability(status, capability.netAdmin)).toBe(netAdmin)
  })
  test('no such line, no capability', () =>
    expect(hasCapability('Name:\tnode\n', capability.sysPtrace)).toBe(false))
})
