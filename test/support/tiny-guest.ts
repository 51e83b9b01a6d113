/**
 * Guests without an operating system: their firmware, of our own making, waits for a byte on the serial console and then
 * does one thing. They boot at once and cost next to nothing.
 */
import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { launch } from '../../src/qemu/launch.ts'
import type { Machine } from '../../src/qemu/options.ts'
import { QemuProcess } from '../../src/qemu/qemu-process.ts'

const firmwareBytes = 64 * 1024
/** Of the 64 KiB below 4 GiB; the processor begins 16 bytes before their end. */
const entry = 0xfff0

/** Machine code (16 bits): wait for a byte of COM1, then run `then`, then halt for good. */
function firmware(then: number[]): Buffer {
  const code = Buffer.alloc(firmwareBytes, 0xf4)
  const wait = [0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf8, 0xba, 0xf8, 0x03, 0xec]
  const halt = [0xf4, 0xeb, 0xfd]
  Buffer.from([...wait, ...then, ...halt]).copy(code)
  // A jump to the start of the segment.
  Buffer.from([0xe9, 0x10000 - entry - 3, 0]).copy(code, entry)
  return code
}

/** Writes one byte to a port. */
export const out = (port: number, value: number) => [0xba, port & 0xff, port >> 8, 0xb0, value, 0xee]

/** Writes it and returns QEMU's options for it. */
export function firmwareOptions(directory: string, name: string, then: number[]): string[] {
  const path = join(directory, `${name}.rom`)
  writeFileSync(path, firmware(then))
  return ['-bios', path]
}

export type MachineTrack = NonNullable<Machine['track']>
export const tinyRamBytes = 32 * 2 ** 20

/** A guest of no agent. */
export async function startTiny(
  directory: string,
  name: string,
  options: string[],
  track: MachineTrack = [],
): Promise<QemuProcess> {
  const files = guestFiles(directory, name)
  const machine = {
    type: 'q35',
    ramBytes: tinyRamBytes,
    accel: 'tcg' as const,
    nics: [],
    disks: [],
    options,
    track,
  }
  const identity = { id: randomUUID(), name, generation: 1 }
  return new QemuProcess(files, await launch(identity, machine, files, false))
}
