/**
 * A log that QEMU appends to, and that cannot fill a file system. The kernel bounds the file, whoever runs: QEMU may write no
 * file beyond `logBytesMax` (RLIMIT_FSIZE, getrlimit(2)), and what does not fit is lost without harm to the guest. While an
 * agent runs it does not come to that: beyond `keptBytes` the content moves to `PATH.1`, of which there is one.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'

/** More than a device state has (replication/device-state.ts), which QEMU writes under the same limit. */
export const logBytesMax = 16 * 2 ** 20
const keptBytes = 4 * 2 ** 20
const partBytes = 256 * 1024

export interface LogLimits {
  keptBytes?: number
}

export class BoundedLog {
  readonly #path: string
  readonly #keptBytes: number
  #droppedBytes: number
  #sizeSeen = 0
  #turning = false
  /** Of the file, in `PATH.1`. */
  #copied = 0

  /** @param droppedBytes what was moved out of the file before */
  constructor(path: string, droppedBytes: number, limits: LogLimits = {}) {
    this.#path = path
    this.#keptBytes = limits.keptBytes ?? keptBytes
    this.#droppedBytes = droppedBytes
  }

  /** What was moved out of the file until now. */
  get droppedBytes(): number {
    return this.#droppedBytes
  }

  /** All that was ever written. A file that cannot be looked at has not grown. */
  get totalBytes(): number {
    try {
      this.#sizeSeen = statSync(this.#path).size
    } catch {
      // Somebody removed it: its guest runs on, and so does whoever asks.
    }
    return this.#droppedBytes + this.#sizeSeen
  }

  /** Moves the content away if it is long. @returns whether it did */
  async turn(): Promise<boolean> {
    if (this.#turning) return false
    this.#turning = true
    let log: FileHandle | undefined
    try {
      log = await open(this.#path, 'r+')
      const { size } = await log.stat()
      if (size <= this.#keptBytes) return false
      await this.#copy(log, size)
      this.#cut()
      return true
    } catch {
      // It was removed, or cannot be written: the kernel's limit holds.
      return false
    } finally {
      await log?.close()
      this.#turning = false
    }
  }

  /** The old one goes first: that makes room. What does not fit even so is lost. */
  async #copy(log: FileHandle, size: number): Promise<void> {
    rmSync(`${this.#path}.1`, { force: true })
    let former: FileHandle | undefined
    try {
      former = await open(`${this.#path}.1`, 'w', 0o600)
      const part = Buffer.alloc(partBytes)
      for (let at = 0; at < size; ) {
        const { bytesRead } = await log.read(part, 0, Math.min(partBytes, size - at), at)
        if (bytesRead === 0) break
        await former.write(part, 0, bytesRead)
        at += bytesRead
      }
    } catch {
      // Without room for it the log is cut all the same.
    } finally {
      this.#copied = size
      await former?.close()
    }
  }

  /** In one go: what QEMU appends between the last read and the cut would be lost. */
  #cut(): void {
    const log = openSync(this.#path, 'r+')
    try {
      const { size } = fstatSync(log)
      this.#append(log, size)
      ftruncateSync(log, 0)
      this.#droppedBytes += size
      this.#sizeSeen = 0
    } finally {
      closeSync(log)
    }
  }

  #append(log: number, size: number): void {
    if (size <= this.#copied) return
    try {
      const rest = Buffer.alloc(size - this.#copied)
      const bytes = readSync(log, rest, 0, rest.length, this.#copied)
      const former = openSync(`${this.#path}.1`, 'a')
      try {
        writeSync(former, rest, 0, bytes)
      } finally {
        closeSync(former)
      }
    } catch {
      // No room: lost.
    }
  }
}

/**
 * What is left of a part of all that was ever written to a log.
 * @param droppedBytes what was moved out of the file until now
 */
export function logPart(path: string, droppedBytes: number, from: number, to: number): Buffer {
  const now = bytesOf(path)
  if (from >= droppedBytes) return now.subarray(from - droppedBytes, Math.max(0, to - droppedBytes))
  const former = bytesOf(`${path}.1`)
  const first = droppedBytes - former.length
  return Buffer.concat([former, now]).subarray(Math.max(0, from - first), Math.max(0, to - first))
}

const bytesOf = (path: string) => (existsSync(path) ? readFileSync(path) : Buffer.alloc(0))

/** The last lines of a log, however long it is. */
export function lastLines(path: string, count: number): string[] {
  let log: number | undefined
  try {
    log = openSync(path, 'r')
    const { size } = fstatSync(log)
    const tail = Buffer.alloc(Math.min(size, partBytes))
    const bytes = readSync(log, tail, 0, tail.length, size - tail.length)
    const lines = tail.toString('utf8', 0, bytes).trim().split('\n')
    return lines.slice(-count).filter((line) => line !== '')
  } catch {
    // There is none.
    return []
  } finally {
    if (log !== undefined) closeSync(log)
  }
}
