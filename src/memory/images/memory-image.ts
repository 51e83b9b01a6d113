/**
 * Files that hold the memory of a machine or a process: raw images, sparse ones as Firecracker writes its snapshots, ELF
 * cores as gcore and QEMU's dump-guest-memory write them, and what LiME and AVML write uncompressed. `openImage` tells them
 * apart by their first bytes, and refuses what is known to be something else.
 */
import { closeSync, fstatSync, readSync } from 'node:fs'
import { openInput } from '../../input-file.ts'
import type { PageRanges } from '../page-ranges.ts'
import { elfMagic, openElfCore } from './elf-core.ts'
import { refuseKnown, startBytes } from './known-formats.ts'
import { limeMagic, openLime } from './lime.ts'
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
  readonly kind: 'raw' | 'elf' | 'lime'
  /** Sorted by address. */
  readonly areas: readonly ImageArea[]
  readonly pageCount: number
  /** Pages that the file says something about. Others are holes of a raw image, or were left out: they read as zeros. */
  readonly held: PageRanges
  /** Of `held`, pages that are not wholly in a hole of the file: only they can be other than zero. */
  readonly data: PageRanges
  /** The pieces of the file that hold whole pages, in the order of `areas`. */
  readonly extents: readonly ImageExtent[]
  /** Pages of `held` that no extent has, because the file has them only in part or in several parts. Ascending. */
  readonly partial: readonly number[]
  /** Fills `into`, a whole number of pages, from page `first` on. */
  read(first: number, into: Uint8Array): void
  close(): void
}

/**
 * @throws SubpageError BAD_ARGUMENT when the file cannot be read or holds no whole pages, IMAGE_MALFORMED when it is known to
 * be something else, or damaged
 */
export function openImage(path: string): MemoryImage {
  const fd = openInput(path)
  try {
    const { size } = fstatSync(fd)
    const start = Buffer.alloc(startBytes)
    const known = start.subarray(0, readSync(fd, start, 0, start.length, 0))
    if (begins(known, elfMagic)) return openElfCore(path, fd, size)
    if (begins(known, limeMagic)) return openLime(path, fd, size)
    refuseKnown(path, known)
    return openRaw(path, fd, size)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

const begins = (start: Buffer, magic: Buffer) => start.subarray(0, magic.length).equals(magic)
