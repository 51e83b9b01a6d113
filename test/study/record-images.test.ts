/** A series of images becomes a trace that holds what changed between them. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { applySync } from '../../src/delta/apply.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { Region } from '../../src/memory/region.ts'
import { type Holes, recordImages } from '../../src/study/record/images.ts'
import { readTrace } from '../../src/study/trace.ts'

let folder: string
const file = (name: string) => join(folder, name)
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-series-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const pages = 300

/** A sparse file of `pages` pages with these bytes: [page, offset in it, value]. */
function sparse(name: string, writes: [page: number, at: number, value: number][], size = pages): string {
  const fd = openSync(file(name), 'w')
  ftruncateSync(fd, size * pageBytes)
  for (const page of new Set(writes.map(([page]) => page))) {
    const data = new Uint8Array(pageBytes)
    for (const [of, at, value] of writes) if (of === page) data[at] = value
    writeSync(fd, data, 0, pageBytes, page * pageBytes)
  }
  closeSync(fd)
  return file(name)
}

const record = (paths: string[], holes?: Holes) =>
  recordImages(paths, holes, { path: file('trace'), replace: true, content: true, progress: () => undefined })

test('diff snapshots on a full one: holes are what did not change', async () => {
  const full = sparse('full', [
    [3, 0, 1],
    [290, 5, 9],
  ])
  const diff = sparse('diff', [
    [3, 64, 7],
    [4, 4095, 1],
  ])
  const summary = await record([full, diff], 'unchanged')
  expect(summary).toMatchObject({ epochs: 1, dirtyPages: 2, changedLines: 3 })
  const trace = readTrace(file('trace'))
  expect(trace.header).toMatchObject({ tracker: 'images', epochUs: 0, target: { kind: 'images' } })
  const [epoch] = [...trace.epochs()]
  expect([...epoch!.dirty.pages()]).toEqual([3, 4])
  // Page 3 lost the byte in line 0 and gained one in line 1; page 4 changed in its last line.
  expect([...epoch!.changedMaps]).toEqual([0b11, 0, 0, 0x8000_0000])
  expect([...epoch!.changedBytes]).toEqual([2, 1])
  using memory = Region.anonymous(pages * pageBytes)
  for (const delta of [...trace.base(), ...epoch!.content!]) applySync(memory, delta)
  expect(memory.read(290 * pageBytes + 5, 1)[0]).toBe(9)
  expect([...memory.read(3 * pageBytes, 65)].filter((byte) => byte !== 0)).toEqual([7])
})

test('full images with holes: holes are zero', async () => {
  const paths = [sparse('a', [[290, 5, 9]]), sparse('b', [[3, 64, 7]])]
  await expect(record(paths)).rejects.toThrow(/b has holes: say --holes unchanged .* or --holes zero/)
  expect(await record(paths, 'zero')).toMatchObject({ epochs: 1, dirtyPages: 2, changedLines: 2 })
})

test('what is no series is refused, and no trace is left', async () => {
  const a = sparse('a', [[0, 0, 1]])
  writeFileSync(file('cut'), new Uint8Array(100))
  await expect(record([a])).rejects.toThrow(/two images at least/)
  await expect(record([a, sparse('small', [[0, 0, 1]], 10)])).rejects.toThrow(
    /images of one series have one size/,
  )
  await expect(record([a, file('cut')])).rejects.toThrow(/100 bytes/)
  await expect(record([a, file('none')])).rejects.toThrow(/there is no file/)
  expect(() => readTrace(file('trace'))).toThrow(/there is no file/)
})
