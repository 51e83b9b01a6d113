/** What a witness kept of a guest's console, by positions among all its output, also of a log that was cut before or since. */
import { appendFileSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Recording } from '../../bench/torture/witnesses.ts'
import { consoleAt, consoleLength, readConsole, victimLines } from '../../src/qemu/demo-guest.ts'

const line = (step: number) => `victim step=${step} pages=1 verify=0 digest=0123456789abcdef\n`

function guest(consoleDropped: number) {
  const directory = mkdtempSync(join(tmpdir(), 'subpage-recording-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const log = join(directory, 'console.log')
  const machine = { type: 'q35', ramBytes: 4096, accel: 'tcg', options: [], nics: [] }
  const record = {
    format: 1,
    id: 'x',
    generation: 1,
    arbitrated: false,
    name: 'x',
    machine,
    qemuVersion: '7',
  }
  const whole = { ...record, process: { pid: 1, startTime: '1' }, waiting: false, consoleDropped }
  writeFileSync(join(directory, 'guest.json'), JSON.stringify(whole))
  writeFileSync(log, line(7) + line(8))
  return { log, console: consoleAt(log) }
}

test('a log that was cut before: a position is one among all output', () => {
  const { log, console } = guest(1_000_000)
  expect(consoleLength(console)).toBe(1_000_000 + 2 * line(7).length)
  const recording = new Recording(console)
  const safe = consoleLength(console)
  appendFileSync(log, line(9))
  for (const text of [recording.until(safe), readConsole(console, 0, safe)])
    expect(victimLines(text ?? '').map(({ step }) => step)).toEqual([7, 8])
  expect(readConsole(console, safe)).toBe(line(9))
  expect(recording.until(999_000)).toBe('')
  expect(recording.until(2_000_000)).toBeUndefined()
  recording.close()
})

test('one that is cut since has nothing to say, however long it has become again', () => {
  const { log, console } = guest(0)
  const recording = new Recording(console)
  const safe = consoleLength(console)
  truncateSync(log)
  expect(recording.until(safe)).toBeUndefined()
  appendFileSync(log, line(100) + line(101) + line(102))
  expect(recording.until(safe)).toBeUndefined()
  recording.close()
})
