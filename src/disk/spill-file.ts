/**
 * A file for what would take too much memory: written once, read once or twice, and gone with the process. It has no name, so nothing
 * is left of it, and gives its room back whenever nothing is in it.
 */
import { constants, mkdirSync, rmSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { constants as system } from 'node:os'
import { join } from 'node:path'

/** What was put into it, until it is released. */
export interface Spilled {
  load(): Promise<Uint8Array>
  release(): void
}

/** A file without a name. @param directory made when it is needed @throws the file system's own error */
export async function openUnnamed(directory: string): Promise<FileHandle> {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const path = join(directory, 'spill')
  const { O_RDWR, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants
  const file = await open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600)
  rmSync(path)
  return file
}

export class SpillFile {
  readonly #directory: string
  #file: FileHandle | undefined
  #end = 0
  #kept = 0
  #emptying: Promise<unknown> = Promise.resolve()
  /** What is in it, and what ever was. */
  bytes = 0
  totalBytes = 0

  /** @param directory made when it is needed */
  constructor(directory: string) {
    this.#directory = directory
  }

  /** One at a time. @throws the file system's own error; nothing was put then */
  async put(content: Uint8Array): Promise<Spilled> {
    await this.#emptying
    this.#file ??= await openUnnamed(this.#directory)
    const [file, at] = [this.#file, this.#end]
    for (let done = 0; done < content.length; ) {
      const { bytesWritten } = await file.write(content, done, content.length - done, at + done)
      if (bytesWritten === 0)
        throw Object.assign(new Error('ENOSPC: no space left on device'), { errno: -system.errno.ENOSPC })
      done += bytesWritten
    }
    this.#end += content.length
    this.#kept++
    this.bytes += content.length
    this.totalBytes += content.length
    return { load: () => this.#load(file, at, content.length), release: () => this.#release(content.length) }
  }

  async close(): Promise<void> {
    await this.#emptying
    await this.#file?.close()
    this.#file = undefined
  }

  async #load(file: FileHandle, at: number, length: number): Promise<Uint8Array> {
    const content = Buffer.allocUnsafeSlow(length)
    for (let done = 0; done < length; ) {
      const { bytesRead } = await file.read(content, done, length - done, at + done)
      if (bytesRead === 0) throw new Error('what was put aside is not there any more')
      done += bytesRead
    }
    return content
  }

  #release(length: number): void {
    this.bytes -= length
    if (--this.#kept > 0) return
    this.#end = 0
    // Its room matters, not when it is given back; a file system that does not do that says so when it is full.
    this.#emptying = (this.#file?.truncate(0) ?? Promise.resolve()).catch(() => undefined)
  }
}
