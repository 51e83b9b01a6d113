/**
 * Mapped memory: a guest's RAM file, a shadow, an image. Offsets are numbers up to 2^53; a region is never one
 * ArrayBuffer, because Node 20 caps those at 4 GiB.
 *
 * Closing while an asynchronous operation uses a region is safe: nothing new can begin, and the memory is unmapped when
 * the last operation has finished. Every use of a closed region is a TypeError.
 */
import { getSystemErrorMap } from 'node:util'
import { SubpageError } from '../errors.ts'
import { addon, type RegionHandle } from './native.ts'
import { pageBytes } from './page.ts'

export class Region {
  /** For the wrappers of native functions in memory/ and delta/ only. */
  readonly handle: RegionHandle
  readonly bytes: number
  readonly pages: number

  private constructor(handle: RegionHandle) {
    this.handle = handle
    this.bytes = addon.regionBytes(handle)
    this.pages = this.bytes / pageBytes
  }

  /**
   * Makes a file (mode 0600), reserves all its room, and maps it. It must not exist yet. Other work goes on meanwhile: it takes
   * 0.3 s a GiB.
   * @throws SubpageError NO_SPACE when it does not fit; BAD_ARGUMENT when it cannot be made
   */
  static async create(path: string, bytes: number): Promise<Region> {
    assertSize(bytes)
    const errno = await addon.reserveFile(path, bytes)
    const [code, why] = getSystemErrorMap().get(-errno) ?? []
    if (errno !== 0) throw mapError(Object.assign(new Error(`${path}: ${why}`), { code }), bytes)
    return Region.map(path, { writable: true })
  }

  /**
   * Maps a file, or its first `bytes`, shared with whoever else maps it.
   * @throws SubpageError NO_SPACE when there is no room to map it; BAD_ARGUMENT when it cannot be opened
   */
  static map(path: string, { writable, bytes = 0 }: { writable: boolean; bytes?: number }): Region {
    try {
      return new Region(addon.regionMap(path, writable, bytes))
    } catch (cause) {
      throw mapError(cause, undefined)
    }
  }

  /** Private memory, zero-filled; a page takes memory when it is first written. */
  static anonymous(bytes: number): Region {
    assertSize(bytes)
    try {
      return new Region(addon.regionAnonymous(bytes))
    } catch (cause) {
      throw mapError(cause, bytes)
    }
  }

  /** A copy of `length` bytes from `offset`. */
  read(offset: number, length: number): Uint8Array {
    const copy = new Uint8Array(length)
    addon.regionRead(this.handle, offset, copy)
    return copy
  }

  /** As `read`, into memory of the caller. */
  readInto(offset: number, into: Uint8Array): void {
    addon.regionRead(this.handle, offset, into)
  }

  write(offset: number, data: Uint8Array): void {
    addon.regionWrite(this.handle, offset, data)
  }

  close(): void {
    addon.regionClose(this.handle)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

function assertSize(bytes: number): void {
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % pageBytes !== 0)
    throw new TypeError(`a region must have a positive multiple of ${pageBytes} bytes, not ${bytes}`)
}

/** Codes of errno that mean "no room"; the message of the addon names the file. */
const noRoom = new Set(['ENOSPC', 'ENOMEM', 'EDQUOT', 'EFBIG'])

function mapError(cause: unknown, bytes: number | undefined): unknown {
  if (!(cause instanceof Error) || !('code' in cause)) return cause
  const code = String(cause.code)
  if (noRoom.has(code))
    return new SubpageError('NO_SPACE', `no room for ${bytes ?? 'all'} bytes of memory: ${cause.message}`, {
      cause,
    })
  if (code === 'EINVAL')
    return new SubpageError('BAD_ARGUMENT', `not a file of whole pages: ${cause.message}`, { cause })
  return new SubpageError('BAD_ARGUMENT', `cannot map memory: ${cause.message}`, { cause })
}
