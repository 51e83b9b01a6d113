/**
 * The CPU path of the native core: chosen once by what the processor has, or forced with SUBPAGE_CPU (scalar, avx2).
 * Every path gives the same bytes; tests and benchmarks switch it.
 */
import { addon } from '../../src/memory/native.ts'

export type CpuPath = 'scalar' | 'avx2'

const known: readonly CpuPath[] = ['scalar', 'avx2']

export function cpuPath(): CpuPath {
  return addon.cpuPath() as CpuPath
}

/** Switches this process. @throws TypeError when this build or this processor lacks the path */
export function selectCpuPath(path: CpuPath | 'best'): void {
  if (!addon.selectCpu(path)) throw new TypeError(`no CPU path ${path} here`)
}

/** The paths that can run here, slowest first. */
export function cpuPaths(): CpuPath[] {
  const before = cpuPath()
  const found = known.filter((path) => addon.selectCpu(path))
  selectCpuPath(before)
  return found
}
