/**
 * Where QEMU writes the devices' state in a pause: a file that is only memory, and that it inherits. So it needs no room in
 * any file system, and nobody can remove it. The agent that started QEMU keeps it open; a later one opens it through /proc.
 */
import { closeSync, fstatSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { addon } from '../memory/native.ts'

/** Its number in QEMU, behind the standard ones. */
const deviceStateFd = 3
const name = 'subpage-devices'

export class DeviceStateFile {
  /** As QEMU opens it, which cuts it and writes it anew. A short name: QEMU handles what it is told byte by byte. */
  readonly pathInQemu: string
  readonly #fd: number

  private constructor(fd: number, pathInQemu: string) {
    this.#fd = fd
    this.pathInQemu = pathInQemu
  }

  /** For a QEMU that is to be started with `fd` as its descriptor `deviceStateFd`. */
  static create(): { file: DeviceStateFile; fd: number } {
    const fd = addon.memoryFile(name)
    return { file: new DeviceStateFile(fd, inQemu), fd }
  }

  /**
   * Of a QEMU that runs.
   * @param directory where one of an earlier release, which has no such file, runs: it writes device.state there
   */
  static of(pid: number, directory: string): DeviceStateFile {
    const inherited = `/proc/${pid}/fd/${deviceStateFd}`
    if (isOurs(inherited)) return new DeviceStateFile(openSync(inherited, 'r'), inQemu)
    // One that somebody else started has it from the shim (native/shim/fresh.c).
    for (const fd of readdirSync(`/proc/${pid}/fd`))
      if (isOurs(`/proc/${pid}/fd/${fd}`))
        return new DeviceStateFile(openSync(`/proc/${pid}/fd/${fd}`, 'r'), `/proc/self/fd/${fd}`)
    const path = join(directory, 'device.state')
    return new DeviceStateFile(openSync(path, 'a+', 0o600), 'device.state')
  }

  /** What QEMU wrote last. */
  read(): Buffer {
    const state = Buffer.alloc(fstatSync(this.#fd).size)
    for (let at = 0; at < state.length; ) {
      const bytes = readSync(this.#fd, state, at, state.length - at, at)
      if (bytes === 0) break
      at += bytes
    }
    return state
  }

  close(): void {
    closeSync(this.#fd)
  }
}

const inQemu = `/proc/self/fd/${deviceStateFd}`

function isOurs(path: string): boolean {
  try {
    return readlinkSync(path).startsWith(`/memfd:${name}`)
  } catch {
    // It has no such descriptor, or has ended.
    return false
  }
}
