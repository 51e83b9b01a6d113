/** Why a native file of this package cannot load here: it was built for another processor, or for another C library. */
import { closeSync, openSync, readSync } from 'node:fs'

/** e_machine of the ELF header (elf(5)), for the processors on which people try. */
const machines: Record<number, { name: string; arch: NodeJS.Architecture }> = {
  62: { name: 'x86-64', arch: 'x64' },
  183: { name: 'aarch64', arch: 'arm64' },
  243: { name: 'RISC-V', arch: 'riscv64' },
}
const machineOffset = 18

/** What this process runs on; `glibc` is undefined with another C library, such as musl. */
export interface Platform {
  arch: string
  glibc: string | undefined
}

/** @returns a clause for people; undefined where that is not the reason, or where there is no file */
export function foreignBuild(path: string, here: Platform = platform()): string | undefined {
  const machine = machineOf(path)
  if (machine === undefined) return undefined
  const built = machines[machine]
  if (built?.arch !== here.arch)
    return `it is built for ${built?.name ?? `the ELF machine ${machine}`} and this host is ${here.arch}`
  return here.glibc === undefined ? 'it is built for glibc and this host has another C library' : undefined
}

function platform(): Platform {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } }
  return { arch: process.arch, glibc: header.glibcVersionRuntime }
}

function machineOf(path: string): number | undefined {
  const header = Buffer.alloc(machineOffset + 2)
  try {
    const file = openSync(path, 'r')
    try {
      if (readSync(file, header, 0, header.length, 0) < header.length) return undefined
    } finally {
      closeSync(file)
    }
  } catch {
    // A file that cannot be read has a reason of its own, which the loader has named.
    return undefined
  }
  return header.readUInt32BE(0) === 0x7f454c46 ? header.readUInt16LE(machineOffset) : undefined
}
