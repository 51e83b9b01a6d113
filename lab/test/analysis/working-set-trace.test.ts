/** A recording is estimated afterwards: what was written in each interval, and a page with it. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PageRanges } from 'subpage/memory/page-ranges'
import { expect, test } from 'vitest'
import { subpage } from '../../../test/support/subpage.ts'
import { samplesOfTrace } from '../../src/analysis/working-set-trace.ts'
import { readTrace, TraceWriter, traceFormat } from '../../src/trace.ts'

const pageCount = 4096
const epochMs = 100

/** Forty epochs: each writes 100 pages, another hundred of the first thousand each time. */
function write(path: string): void {
  const writer = new TraceWriter(path, {
    ...{ format: traceFormat, target: { kind: 'vm', name: 'web' }, tracker: 'userfault' },
    ...{ epochUs: epochMs * 1000, memoryBytes: pageCount * 4096, written: false, content: false },
    ...{ counters: [], notes: [], host: { name: 'h', kernel: '6.18', cpu: 'x' }, release: '0.1.0' },
    startedAt: '2026-01-01T00:00:00.000Z',
  })
  writer.areas([{ firstPage: 0, pageCount, address: 0, name: 'ram' }])
  for (let epoch = 0; epoch < 40; epoch++)
    writer.epoch({
      ...{ startUs: epoch * epochMs * 1000, lengthUs: epochMs * 1000, pauseUs: 100 },
      dirty: PageRanges.of([[(epoch % 10) * 100, 100]]),
      changedMaps: new Uint32Array(200).fill(1),
      changedBytes: new Uint16Array(100).fill(1),
    })
  writer.end('time', 4_000_000)
}

test('counts distinct pages of each interval, and says that it knows only what was written', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-wss-'))
  const path = join(folder, 'web.trace')
  try {
    write(path)
    const whole = samplesOfTrace(readTrace(path), 1000)
    expect(whole.map(({ dist }) => dist.pages)).toEqual([1000, 1000, 1000, 1000])
    expect(whole.at(-1)).toMatchObject({
      estimate: { pages: 1000, plusMinus: 0, stable: true, intervals: 4 },
      written: { pages: 1000 },
      atMs: Date.parse('2026-01-01T00:00:04.000Z'),
    })
    expect(samplesOfTrace(readTrace(path), 500).map(({ dist }) => dist.pages)).toEqual(Array(8).fill(500))
    const html = join(folder, 'web.html')
    const { status, out } = await subpage(['wss', path, '--html', html])
    expect(status).toBe(0)
    expect(out).toMatch(/^16 MiB recorded, 3\.9 ± 0\.0 MiB written within an interval, over the last 4 s\n/)
    expect(out).toContain('memory that was only read is not counted')
    expect(readFileSync(html, 'utf8')).toContain('The working set of')
  } finally {
    rmSync(folder, { recursive: true })
  }
})
