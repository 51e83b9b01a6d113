/**
 * Files that hold the memory of a machine or a process: raw images, sparse ones as Firecracker writes its snapshots, and
 * ELF cores as gcore and QEMU's dump-guest-memory write them. `openImage` tells them apart by their first bytes.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { errorCode, SubpageError } from '../../errors.ts'
import type { PageRanges } from '../page-ranges.ts'
import { elfMagic, openElfCore } from './elf-core.ts'
import { openRaw } from './raw.ts'

/** Pages that lie one after the other in the machine or process. */
export interface ImageArea {
  /** Pages of an image are numbered through its areas. */
  firstPage: number
  pageCount: number
  /** Of its first byte: physical in a machine, virtual in a process. */
  address: number
}

/** A piece of an image's file. */
export interface ImageExtent {
  offset: number
  bytes: number
}

export interface MemoryImage {
  readonly path: string
  readonly kind: 'raw' | 'elf'
  /** Sorted by address. */
  readonly areas: readonly ImageArea[]
  readonly pageCount: number
  /** Pages that the file has data for. Others are holes, or were left out of a core: they read as zeros. */
  readonly held: PageRanges
  /** The pieces of the file that hold whole pages, in the order of `areas`. */
  readonly extents: readonly ImageExtent[]
  /** Fills `into`, a whole number of pages, from page `first` on. */
  read(first: number, into: Uint8Array): void
  close(): void
}

/**
 * @throws SubpageError BAD_ARGUMENT when the file cannot be read or holds no whole pages, IMAGE_MALFORMED when it is an ELF
 * file but no core, or damaged
 */
export function openImage(path: string): MemoryImage {
  const fd = open(path)
  try {
    const file = fstatSync(fd)
    if (!file.isFile()) throw new SubpageError('BAD_ARGUMENT', `${path} is not a file`)
    const start = Buffer.alloc(elfMagic.length)
    readSync(fd, start, 0, start.length, 0)
    return start.equals(elfMagic) ? openElfCore(path, fd, file.size) : openRaw(path, fd, file.size)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function open(path: string): number {
  try {
    return openSync(path, 'r')
  } catch (cause) {
    if (errorCode(cause) === undefined) throw cause
    throw new SubpageError(
      'BAD_ARGUMENT',
      errorCode(cause) === 'ENOENT'
        ? `there is no file ${path}`
        : `cannot read ${path}: ${(cause as Error).message}`,
      { cause },
    )
  }
}
