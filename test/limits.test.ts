/** The table of limits: C and TypeScript agree, each row names a test that tries it, and those that no other test has are tried here. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { EventLog } from '../src/agent/event-log.ts'
import { type Limit, limits } from '../src/limits.ts'
import { openImage } from '../src/memory/images/memory-image.ts'
import { addon } from '../src/memory/native.ts'
import { encodeHeader, frameType } from '../src/replication/frame.ts'

const root = join(import.meta.dirname, '..')

test.each(Object.entries<Limit>(limits))('%s names a test that tries it', (name, limit) => {
  expect(limit.value).toBeGreaterThan(0)
  const text = readFileSync(join(root, limit.test), 'utf8')
  const inC = `SP_${name.replace(/[A-Z]/g, '_$&').toUpperCase()}`
  expect(new RegExp(`limits\\.${name}\\b|\\b${inC}`).test(text), limit.test).toBe(true)
})

test('limits of native/core are those of the table', () => {
  for (const [name, value] of Object.entries(addon.coreLimits()))
    expect([name, limits[name as keyof typeof limits].value]).toEqual([name, value])
})

test('a device state of any content fits into a frame', () => {
  // Raw pages: gap, two bytes of kind, content; a length, and a header and closing zeros of the delta.
  const worst = 4 + 16 + 8 + (limits.deviceStateBytes.value / 4096) * (1 + 2 + 4096)
  expect(worst).toBeLessThanOrEqual(limits.framePayloadBytes.value)
  expect(() =>
    encodeHeader({ type: frameType.device, epoch: 1, payload: new Uint8Array(worst) }, 0),
  ).not.toThrow()
})

test('the oldest events are forgotten', () => {
  const log = new EventLog()
  const seen: string[] = []
  for (let i = 0; i < limits.keptEvents.value + 7; i++) log.add('web', 'guest', String(i))
  for (const { text } of log.recent()) seen.push(text)
  expect(seen).toHaveLength(limits.keptEvents.value)
  expect(seen[0]).toBe('7')
  log.add('web', 'guest', 'x'.repeat(limits.eventLength.value + 1))
  expect(log.recent().at(-1)?.text).toHaveLength(limits.eventLength.value)
})

test('a core that claims more segments than are read is refused before memory is taken for them', () => {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-limits-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const core = Buffer.alloc(4096)
  core.write('\x7fELF\x02\x01\x01', 0, 'latin1')
  core.writeUInt16LE(4, 16)
  core.writeBigUInt64LE(1024n, 32)
  core.writeBigUInt64LE(512n, 40)
  core.writeUInt16LE(56, 54)
  core.writeUInt16LE(0xffff, 56)
  for (const count of [limits.coreSegments.value + 1, 2 ** 32 - 1]) {
    core.writeUInt32LE(count, 512 + 44)
    writeFileSync(join(folder, 'core'), core)
    const before = process.memoryUsage().arrayBuffers
    expect(() => openImage(join(folder, 'core'))).toThrow(
      expect.objectContaining({ code: 'IMAGE_MALFORMED' }),
    )
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 24)
  }
})

test.each([2n ** 53n, 2n ** 63n, 2n ** 64n - 1n])(
  'a core whose sections begin at byte %d is refused',
  (at) => {
    const folder = mkdtempSync(join(tmpdir(), 'subpage-limits-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const core = Buffer.alloc(4096)
    core.write('\x7fELF\x02\x01\x01', 0, 'latin1')
    core.writeUInt16LE(4, 16)
    core.writeBigUInt64LE(1024n, 32)
    core.writeBigUInt64LE(at, 40)
    core.writeUInt16LE(56, 54)
    core.writeUInt16LE(0xffff, 56)
    writeFileSync(join(folder, 'core'), core)
    expect(() => openImage(join(folder, 'core'))).toThrow(
      expect.objectContaining({ code: 'IMAGE_MALFORMED' }),
    )
  },
)

test('the table is the documentation', () => {
  const page = readFileSync(join(root, 'docs/limits.md'), 'utf8')
  for (const { of } of Object.values<Limit>(limits)) expect(page).toContain(of)
})
