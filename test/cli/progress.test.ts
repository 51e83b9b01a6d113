/** Work that takes long says how far it is: in seconds for people, not at all for programs, and nothing when it is over soon. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createOutput } from '../../src/cli/output.ts'
import { perform } from '../../src/cli/perform.ts'
import { ifSlow, progress, progressBar, progressEvery } from '../../src/cli/progress.ts'

function recorder(json = false) {
  const told = { out: '', said: '' }
  const out = { write: (text: string) => (told.out += text) }
  const err = { write: (text: string) => (told.said += text) }
  return { told, sinks: { out, err }, output: createOutput(json, { out, err }) }
}

describe('in time that a test makes', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  test('a line every five seconds until it is over', () => {
    const { told, output } = recorder()
    {
      using _ = progress(output, (seconds) => `working: ${seconds} s`)
      vi.advanceTimersByTime(4_999)
      expect(told.said).toBe('')
      vi.advanceTimersByTime(5_001)
      expect(told.said).toBe('  working: 5 s\n  working: 10 s\n')
    }
    vi.advanceTimersByTime(60_000)
    expect(told).toEqual({ out: '', said: '  working: 5 s\n  working: 10 s\n' })
  })

  test('of what can be counted, a bar on a terminal and lines elsewhere, with rate and time left', () => {
    const figures = { doneBytes: 2 ** 30, totalBytes: 2 ** 32, bytesPerSecond: 2 ** 28, secondsLeft: 11.2 }
    const words = 'seeding 25 %: 1.0 GiB of 4.0 GiB, 256 MiB/s, 12 s left'
    const told = { out: '', said: '' }
    const err = { write: (text: string) => (told.said += text), isTTY: true, columns: 100 }
    const terminal = createOutput(false, { out: { write: (text: string) => (told.out += text) }, err })
    {
      using _ = progressBar(terminal, 'seeding', () => figures, 'waiting')
      vi.advanceTimersByTime(1_999)
      expect(told.said).toBe('')
      vi.advanceTimersByTime(1)
      expect(told.said).toBe(`[${'#'.repeat(6)}${' '.repeat(18)}] ${words}`)
      terminal.note('a remark')
      expect(told.said.endsWith('left\r\x1b[Ka remark\n')).toBe(true)
    }
    const { told: lines, output } = recorder()
    {
      using _ = progressBar(output, 'seeding', () => figures, 'waiting')
      vi.advanceTimersByTime(5_000)
    }
    expect(lines.said).toBe(`  ${words}\n`)
  })

  test('programs are told nothing', () => {
    const { told, output } = recorder(true)
    using _ = progress(output, () => 'working')
    vi.advanceTimersByTime(60_000)
    expect(told).toEqual({ out: '', said: '' })
  })

  test('what is waited for is said once, and only if there is a wait', () => {
    const { told, output } = recorder()
    ifSlow(output, 'soon over')[Symbol.dispose]()
    using _ = ifSlow(output, 'it waits for something')
    vi.advanceTimersByTime(60_000)
    expect(told.said).toBe('it waits for something\n')
  })

  test('ten lines or so, one in five seconds at most and one a minute at least', () => {
    expect([1_000, 50_000, 100_000, 3_600_000].map(progressEvery)).toEqual([5_000, 5_000, 10_000, 60_000])
  })
})

describe('commands', () => {
  afterEach(() => void vi.restoreAllMocks())

  /** The clock by which progress is told, and no other, can be set forward. */
  function clock() {
    const real = performance.now.bind(performance)
    let passedMs = 0
    vi.spyOn(performance, 'now').mockImplementation(() => real() + passedMs)
    return (ms: number) => {
      passedMs += ms
    }
  }

  test('wss', async () => {
    const pass = clock()
    const { told, sinks } = recorder()
    const watched = perform(['wss', `pid:${process.pid}`, '--for', '1h', '--interval', '50ms'], sinks)
    // Until it has begun to watch, no time of its own passes.
    await expect
      .poll(() => {
        pass(61_000)
        return told.said
      })
      .toMatch(/^ {2}[\d.]+ ?(s|min) of 60 min: [\d.]+ \w+ used in the last interval\n/)
    pass(3_600_000)
    expect(await watched).toBe(0)
    expect(told.out).not.toBe('')
  })

  test('wss for programs', async () => {
    const pass = clock()
    const { told, sinks } = recorder(true)
    const watched = perform(
      ['wss', `pid:${process.pid}`, '--for', '1h', '--interval', '50ms', '--json'],
      sinks,
    )
    const passing = setInterval(() => pass(600_000), 20)
    try {
      expect(await watched).toBe(0)
    } finally {
      clearInterval(passing)
    }
    expect(told.said).toBe('')
    expect(JSON.parse(told.out).samples.length).toBeGreaterThan(0)
  })

  test('density analyze', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'subpage-progress-'))
    const image = join(folder, 'image')
    const content = Buffer.alloc(64 * 2 ** 20)
    for (let at = 0; at < content.length; at += 8) content.writeUInt32LE((at * 2_654_435_761) >>> 0, at)
    writeFileSync(image, content)
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
    try {
      const { told, sinks } = recorder()
      const analyzed = perform(['density', 'analyze', image], sinks)
      // It has begun when it has set its timer.
      while (vi.getTimerCount() === 0) await new Promise(setImmediate)
      vi.advanceTimersByTime(5_000)
      expect(told.said).toMatch(
        /^ {2}analyzing 64\.?0? MiB: 5 s, [\d.]+ \w+ read \(memory is read once or more\)\n$/,
      )
      expect(await analyzed).toBe(0)
      expect(vi.getTimerCount()).toBe(0)
    } finally {
      vi.useRealTimers()
      rmSync(folder, { recursive: true })
    }
  })
})
