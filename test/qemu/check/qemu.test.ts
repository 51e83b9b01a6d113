/** How the probe reads QEMU's answers, and what it says when there is no QEMU. The real one: test/guest/host-check.test.ts. */
import { afterEach, describe, expect, test, vi } from 'vitest'
import { parseAnswers } from '../../../src/qemu/check/qemu.ts'

const greeting = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}}}'
const commands = '{"return": [{"name": "stop"}, {"name": "cont"}], "id": "commands"}'
const buffer = '{"return": [{"name": "interval", "type": "uint32"}], "id": "buffer"}'
const noBuffer = '{"id": "buffer", "error": {"class": "DeviceNotFound", "desc": "Class not found"}}'

describe("QEMU's answers", () => {
  test('version, commands and buffers, with noise between', () => {
    for (const [answer, buffers] of [
      [buffer, true],
      [noBuffer, false],
    ] as const) {
      const answers = [greeting, '{"return": {}}', 'a warning', commands, answer, '{"return": {}}', '{"ev']
      expect(parseAnswers(answers.join('\n'))).toEqual({
        version: '7.2.22',
        commands: new Set(['stop', 'cont']),
        buffers,
      })
    }
  })
  test.each([
    ['nothing', ''],
    ['no greeting', `${commands}\n${buffer}`],
    ['no commands', `${greeting}\n${buffer}`],
    ['cut off', `${greeting}\n${commands}\n${buffer.slice(0, -1)}`],
  ])('%s: no answer is made up', (_, text) => expect(parseAnswers(text)).toBeUndefined())
})

describe('without a working QEMU', () => {
  afterEach(() => {
    vi.unstubAllEnvs()
    vi.resetModules()
  })
  const reportWith = async (binary: string) => {
    vi.stubEnv('SUBPAGE_QEMU', binary)
    vi.resetModules()
    const { checkHost } = await import('../../../src/qemu/host-check.ts')
    return checkHost()
  }

  test('none installed: not usable, and how to get it', async () => {
    const report = await reportWith('qemu-system-of-nobody')
    expect(report).toMatchObject({ usable: false, accel: 'tcg' })
    expect(report.items[0]).toMatchObject({
      name: 'QEMU',
      ok: false,
      found: 'qemu-system-of-nobody is not installed',
      remedy: 'apt-get install qemu-system-x86',
    })
  })

  test('one that fails: its own words', async () => {
    const report = await reportWith('false')
    expect(report.usable).toBe(false)
    expect(report.items[0]?.found).toBe('does not answer: it said nothing')
  })
})
