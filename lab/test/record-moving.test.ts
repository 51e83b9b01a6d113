/** What is recorded of memory that changes while it is looked at, as that of a protected guest, which is not paused for it. */
import { spawn } from 'node:child_process'
import { rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { applySync } from 'subpage/delta/apply'
import { compareRegionsSync } from 'subpage/memory/hash'
import { pageBytes } from 'subpage/memory/page'
import { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { expect, onTestFinished, test } from 'vitest'
import { makeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import { record } from '../src/record/recorder.ts'
import type { RecordTarget } from '../src/record/target.ts'
import { readTrace } from '../src/trace.ts'

const pages = 4096

/** Writes to this memory, a page now and then after the other, until it is killed. */
const writer = `
  const fs = require('node:fs')
  const fd = fs.openSync(process.argv[1], 'r+')
  const bytes = Buffer.alloc(8)
  console.log('writes')
  for (let n = 0; ; n++) {
    bytes.writeDoubleLE(n)
    fs.writeSync(fd, bytes, 0, 8, ${pageBytes} * ((n * 37) % ${pages}))
    if (process.ppid === 1) process.exit()
  }`

test('an epoch changes no page that it does not name', async () => {
  const folder = makeOwnedDirectory('subpage-test-moving-', '/dev/shm')
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const [memory, path] = [join(folder, 'ram'), join(folder, 'trace')]
  writeFileSync(memory, '')
  truncateSync(memory, pages * pageBytes)
  const child = spawn(process.execPath, ['-e', writer, memory], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  await new Promise((resolve) => child.stdout.once('data', resolve))
  using ram = Region.map(memory, { writable: false })
  const target: RecordTarget = {
    ...{
      kind: 'vm',
      name: 'moving',
      tracker: 'compare',
      guesses: true,
      written: false,
      counters: [],
      notes: [],
    },
    ...{ memoryBytes: ram.bytes, ram, startPauseUs: 0, endedHow: undefined, ended: undefined },
    areas: [{ firstPage: 0, pageCount: pages, address: 0, name: 'ram' }],
    hold: async (look) => {
      const heldAt = performance.now()
      return { value: look(), heldAt, resumedAt: performance.now(), pauseUs: 0, torn: undefined }
    },
    catchUp: async () => undefined,
    harvest: () => ({ dirty: PageRanges.all(pages), newAreas: [] }),
    assertReadable: () => undefined,
    close: () => undefined,
  }
  const { signal } = new AbortController()
  const progress = () => undefined
  await record(target, { path, replace: false, epochMs: 2, forMs: 300, content: true, signal, progress })

  const trace = readTrace(path)
  using former = Region.anonymous(ram.bytes)
  using memoryThen = Region.anonymous(ram.bytes)
  for (const region of [former, memoryThen]) for (const delta of trace.base()) applySync(region, delta)
  let [named, unnamed] = [0, 0]
  for (const { dirty, content = [] } of trace.epochs()) {
    for (const delta of content) applySync(memoryThen, delta)
    if (compareRegionsSync(former, memoryThen, PageRanges.all(pages).subtract(dirty)) !== undefined) unnamed++
    named += dirty.pageCount
    for (const delta of content) applySync(former, delta)
  }
  expect(named).toBeGreaterThan(100)
  expect(unnamed).toBe(0)
})
