/**
 * Readers of the plugin's share, on a file that is written here as the plugin writes it: what each part says, what is taken
 * and what stays, and what is refused. test/guest/plugin.test.ts has the plugin itself.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { type PluginPart, pluginPartNames, pluginParts } from 'subpage/qemu/plugin'
import { DistEstimator } from 'subpage/workingset/dist'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openExact } from '../../src/plugin/exact.ts'
import * as layout from '../../src/plugin/layout.ts'
import { openLines } from '../../src/plugin/lines.ts'
import { exactSource, pmlSource, prlSource } from '../../src/plugin/observations.ts'
import { openPml } from '../../src/plugin/pml.ts'
import { loggedMoreThan, openPrl } from '../../src/plugin/prl.ts'
import { PluginShare } from '../../src/plugin/share.ts'

const { headerAt, vcpuAt, vcpuBytes, logAt } = layout
const pages = 1000
const at = { vcpus: 4096, lines: 69632, dirty: 77824, counts: 81920, read: 86016, stored: 90112 }

let directory: string
let path: string
let plugin: Region

/** Makes the file, with these parts. */
function make(parts: readonly PluginPart[] = pluginPartNames): void {
  const mask = parts.reduce((sum, part) => sum | pluginParts[part], 0)
  const made = layout.shareLayout(mask, pages)
  if (parts.length === 4) expect(made).toEqual({ offsets: at, bytes: 94208 })
  const view = new DataView(new ArrayBuffer(made.bytes))
  view.setBigUint64(headerAt.magic, layout.shareMagic, true)
  view.setUint32(headerAt.format, layout.shareFormat, true)
  view.setUint32(headerAt.parts, mask, true)
  for (const [field, value] of [
    [headerAt.pages, pages],
    [headerAt.bytes, made.bytes],
    [headerAt.vcpusOffset, made.offsets.vcpus],
    [headerAt.linesOffset, made.offsets.lines],
    [headerAt.dirtyOffset, made.offsets.dirty],
    [headerAt.countsOffset, made.offsets.counts],
    [headerAt.readOffset, made.offsets.read],
    [headerAt.storedOffset, made.offsets.stored],
  ] as const)
    view.setBigUint64(field, BigInt(value), true)
  writeFileSync(path, new Uint8Array(view.buffer))
  plugin = Region.map(path, { writable: true })
}

const u64 = (value: bigint | number) => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer)
const markBits = (offset: number, marked: number[]) => {
  const words = new BigUint64Array(Math.ceil(pages / 64))
  for (const page of marked) words[page >> 6]! |= 1n << BigInt(page & 63)
  plugin.write(offset, new Uint8Array(words.buffer))
}
const count = (page: number, times: number) =>
  plugin.write(at.counts + 2 * page, new Uint8Array(Uint16Array.of(times).buffer))
const logFull = (log: 'pml' | 'prl', vcpu: number, size: number, times: number) =>
  plugin.write(at.vcpus + vcpu * vcpuBytes + vcpuAt[log] + logAt.full + 8 * size, u64(times))

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'subpage-share-'))
  path = join(directory, 'accesses')
  make()
})
afterEach(() => {
  plugin.close()
  rmSync(directory, { recursive: true })
})

test('lines: pages are named until their marks are taken, each mark once', () => {
  using share = PluginShare.open(path)
  const lines = openLines(share)
  plugin.write(at.lines + 8 * 5, u64((1n << 63n) | 1n))
  plugin.write(at.lines + 8 * 6, u64(1n << 32n))
  plugin.write(at.lines + 8 * 999, u64(2))
  expect([...lines.pages().pages()]).toEqual([5, 6, 999])
  expect([...lines.take(PageRanges.of([[4, 3]]))]).toEqual([0, 0, 1, 0x80000000, 0, 1])
  expect([...lines.pages().pages()]).toEqual([999])
  expect([...lines.take(PageRanges.of([[998, 2]]))]).toEqual([0, 0, 2, 0])
  expect(lines.pages().pageCount).toBe(0)
  expect(() => lines.take(PageRanges.of([[999, 2]]))).toThrow(TypeError)
})

test('pml and prl: what was logged since the last harvest, and how often logs were full', () => {
  using share = PluginShare.open(path)
  logFull('pml', 0, 0, 7)
  const [pml, prl] = [openPml(share), openPrl(share)]
  markBits(at.dirty, [0, 63, 64, 999])
  logFull('pml', 0, 0, 9)
  logFull('pml', 255, 2, 1)
  const { pages: logged, full } = pml.harvest()
  expect([...logged.pages()]).toEqual([0, 63, 64, 999])
  expect(full).toEqual({ 128: 2, 256: 0, 512: 1, 1024: 0, 2048: 0, 4096: 0 })
  expect(pml.harvest()).toMatchObject({ pages: { pageCount: 0 }, full: { 128: 0, 512: 0 } })
  count(3, 1)
  count(4, 5)
  count(999, layout.countMax)
  const { counts } = prl.harvest()
  expect([...loggedMoreThan(0, counts).pages()]).toEqual([3, 4, 999])
  expect([...loggedMoreThan(1, counts).pages()]).toEqual([4, 999])
  expect([...loggedMoreThan(5, counts).pages()]).toEqual([999])
  expect(loggedMoreThan(0, prl.harvest().counts).pageCount).toBe(0)
  // The TLBs are emptied with every harvest, the logs with those of 128 entries first.
  const generation = plugin.read(headerAt.tlbGeneration, 4)
  expect(generation[0]).toBe(2)
  const left = plugin.read(at.vcpus + 3 * vcpuBytes + vcpuAt.prl + logAt.left, 24)
  expect([...new Uint32Array(left.buffer)]).toEqual([...layout.logEntries])
})

test('sources of estimates: PRL sees reads, PML does not, and the truth says who read and who wrote', () => {
  using share = PluginShare.open(path)
  markBits(at.stored, [1, 2, 3])
  const sources = { prl: prlSource(share, 1), pml: pmlSource(share), exact: exactSource(share) }
  const estimator = new DistEstimator(pages)
  const written = Array.from({ length: 300 }, (_, i) => i)
  const read = Array.from({ length: 500 }, (_, i) => 200 + i)
  for (let interval = 0; interval < 3; interval++) {
    markBits(at.stored, written)
    markBits(at.dirty, written)
    markBits(at.read, read)
    for (let page = 0; page < 700; page++) count(page, 2)
    count(800, 1)
    const seen = sources.prl.look()
    expect(seen).toMatchObject({ accessed: { pageCount: 700 }, present: { pageCount: 701 } })
    expect(seen.watched.pageCount).toBe(pages)
    estimator.add(seen)
    const { accessed } = sources.pml.look()
    expect(accessed.pageCount).toBe(300)
    const truth = sources.exact.look()
    expect(truth.accessed.pageCount).toBe(700)
    expect(truth.written?.pageCount).toBe(300)
    expect(truth.startMs).toBeLessThanOrEqual(truth.endMs)
  }
  expect(estimator.estimate).toMatchObject({ pages: 700, stable: true })
})

test('the exact record says read and written apart', () => {
  using share = PluginShare.open(path)
  const exact = openExact(share)
  markBits(at.read, [1, 2])
  markBits(at.stored, [2, 70])
  const { read, written } = exact.harvest()
  expect([[...read.pages()], [...written.pages()]]).toEqual([
    [1, 2],
    [2, 70],
  ])
  expect(exact.harvest()).toMatchObject({ read: { pageCount: 0 }, written: { pageCount: 0 } })
})

test('a reader asks for notes, and has enough when it closes', async () => {
  const wanted = () => plugin.read(headerAt.wanted, 4)[0]
  const share = PluginShare.open(path)
  expect(wanted()).toBe(1)
  let pauses = 0
  await share.untilActive(async () => {
    pauses++
    plugin.write(headerAt.active, Uint8Array.of(1, 0, 0, 0))
  })
  await share.untilActive(async () => {
    pauses++
  })
  expect(pauses).toBe(1)
  share.close()
  share.close()
  expect(wanted()).toBe(0)
  expect(() => share.takeCounts()).toThrow(TypeError)
})

test('what cannot be read is refused, and why', () => {
  expect(() => PluginShare.open(join(directory, 'none'))).toThrow(/started without the plugin.*--track/)
  const first = PluginShare.open(path)
  expect(() => PluginShare.open(path)).toThrow(/another program reads/)
  first.close()
  plugin.close()
  rmSync(path)
  make(['lines'])
  using lines = PluginShare.open(path)
  for (const open of [openPml, openPrl, openExact])
    expect(() => open(lines)).toThrow(/start it with --track (pml|prl|accesses)/)
  lines.close()
  // Parts that lie elsewhere, more pages than there is room for, other parts than the file has.
  for (const [field, value] of [
    [headerAt.pages, 2n ** 30n],
    [headerAt.pages, 2n ** 63n],
    [headerAt.pages, 0n],
    [headerAt.bytes, 4096n],
    [headerAt.vcpusOffset, 0n],
    [headerAt.linesOffset, 8n],
    [headerAt.dirtyOffset, 4096n],
  ] as const) {
    const before = plugin.read(field, 8)
    plugin.write(field, u64(value))
    expect(() => PluginShare.open(path)).toThrow(/is damaged/)
    plugin.write(field, before)
  }
  PluginShare.open(path).close()
  plugin.write(headerAt.format, Uint8Array.of(2, 0, 0, 0))
  expect(() => PluginShare.open(path)).toThrow(/another release/)
  plugin.write(headerAt.magic, u64(0))
  expect(() => PluginShare.open(path)).toThrow(/not made by the plugin/)
})
