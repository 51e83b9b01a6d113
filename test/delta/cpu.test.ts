/** The choice of the CPU path: by environment variable, by processor, and never another one in silence. */
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import { load, packageRoot } from '../../src/memory/native.ts'
import { cpuPath, cpuPaths, selectCpuPath } from '../support/cpu.ts'

const addonPath = join(packageRoot, 'build/native/subpage.node')

afterEach(() => {
  vi.unstubAllEnvs()
  selectCpuPath('best')
})

it('always has the scalar path, and can be told to take it', () => {
  expect(cpuPaths()).toContain('scalar')
  vi.stubEnv('SUBPAGE_CPU', 'scalar')
  expect(load(addonPath).cpuPath()).toBe('scalar')
  selectCpuPath('best')
  expect(cpuPath()).toBe(cpuPaths().at(-1))
})

it('refuses a path that this build does not have', () => {
  vi.stubEnv('SUBPAGE_CPU', 'avx512')
  expect(() => load(addonPath).cpuPath()).toThrow(
    expect.objectContaining({ code: 'BAD_ARGUMENT', message: expect.stringContaining('SUBPAGE_CPU=avx512') }),
  )
  expect(() => selectCpuPath('avx512' as never)).toThrow(TypeError)
})
