/**
 * A raw image: byte n of the file is byte n of memory. In a sparse one what is a hole is not held: Firecracker's diff
 * snapshots leave out what did not change, its full ones and copies what is zero (its docs/snapshotting).
 */
import { closeSync } from 'node:fs'
import { SubpageError } from '../../errors.ts'
import { dataPages } from '../data-pages.ts'
import { pageBytes } from '../page.ts'
import { readWhole } from './file-bytes.ts'
import type { MemoryImage } from './memory-image.ts'

/** Takes `fd` over. */
export function openRaw(path: string, fd: number, bytes: number): MemoryImage {
  if (bytes === 0) throw new SubpageError('BAD_ARGUMENT', `${path} is empty: give an image of memory`)
  if (bytes % pageBytes !== 0)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${path} is no raw image, or is cut short: it has ${bytes} bytes, and memory has whole pages of ${pageBytes}; if it is meant, \`truncate -s %${pageBytes} FILE\` fills its last page`,
    )
  const pageCount = bytes / pageBytes
  const held = dataPages(fd, bytes)
  return {
    path,
    kind: 'raw',
    areas: [{ firstPage: 0, pageCount, address: 0 }],
    pageCount,
    held,
    data: held,
    extents: [{ offset: 0, bytes }],
    partial: [],
    read: (first, into) => readWhole(path, fd, first * pageBytes, into),
    close: () => closeSync(fd),
  }
}
