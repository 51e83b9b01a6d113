/** Which pages of a file hold anything: a file of memory has holes where nobody has ever written. */
import { closeSync, openSync } from 'node:fs'
import { addon } from './native.ts'
import { pageBytes } from './page.ts'
import { PageRanges } from './page-ranges.ts'

/** Pages of which any byte is not in a hole; those that were swapped out among them. */
export function dataPages(fd: number, bytes: number): PageRanges {
  const span = new Float64Array(2)
  const runs: [number, number][] = []
  for (let at = 0; at < bytes && addon.fileData(fd, at, span); at = span[1]!) {
    const first = Math.floor(span[0]! / pageBytes)
    runs.push([first, Math.ceil(Math.min(span[1]!, bytes) / pageBytes) - first])
  }
  return PageRanges.of(runs)
}

/** As `dataPages`, of the file that has this name now. @throws the file system's own error */
export function dataPagesAt(path: string, bytes: number): PageRanges {
  const fd = openSync(path, 'r')
  try {
    return dataPages(fd, bytes)
  } finally {
    closeSync(fd)
  }
}
