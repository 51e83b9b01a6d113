/** A log that another program appends to stays bounded, and loses nothing but what is older than its last turn. */
import { once } from 'node:events'
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { BoundedLog, lastLines, logBytesMax, logPart } from '../../src/qemu/bounded-log.ts'
import { replaceInPlace } from '../../src/qemu/room.ts'
import { spawnQemu } from '../../src/qemu/spawn.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-log-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

let path: string
let count = 0
beforeEach(() => {
  path = join(directory, `log${++count}`)
})

test('a short log stays as it is', async () => {
  writeFileSync(path, 'x'.repeat(100))
  const log = new BoundedLog(path, 0, { keptBytes: 100 })
  expect([await log.turn(), log.totalBytes, log.droppedBytes]).toEqual([false, 100, 0])
})

test('a long one moves away, and every byte is counted', async () => {
  const log = new BoundedLog(path, 7, { keptBytes: 100 })
  writeFileSync(path, 'a'.repeat(150))
  expect(log.totalBytes).toBe(157)
  expect(await log.turn()).toBe(true)
  appendFileSync(path, 'b'.repeat(150))
  expect([log.totalBytes, log.droppedBytes, statSync(path).size]).toEqual([307, 157, 150])
  expect(readFileSync(`${path}.1`, 'utf8')).toBe('a'.repeat(150))
  expect(await log.turn()).toBe(true)
  expect(readFileSync(`${path}.1`, 'utf8')).toBe('b'.repeat(150))
  expect(log.totalBytes).toBe(307)
})

test('a position among all that was ever written leads to the same bytes after it has turned', async () => {
  const log = new BoundedLog(path, 0, { keptBytes: 100 })
  const written = 'abcdefghij'.repeat(100)
  for (let at = 0; at < written.length; at += 150) {
    appendFileSync(path, written.slice(at, at + 150))
    await log.turn()
  }
  appendFileSync(path, 'end')
  const all = `${written}end`
  const part = (from: number, to = Number.POSITIVE_INFINITY) =>
    logPart(path, log.droppedBytes, from, to).toString()
  const kept = part(0).length
  expect(kept).toBeGreaterThan(100)
  expect(kept).toBeLessThan(400)
  expect(part(0)).toBe(all.slice(-kept))
  for (let from = all.length - kept; from <= all.length; from += 7)
    for (const to of [from, from + 20, all.length, all.length + 5])
      expect(part(from, to)).toBe(all.slice(from, to))
  expect(part(0, all.length - kept)).toBe('')
  rmSync(`${path}.1`)
  for (const from of [0, log.droppedBytes]) expect(part(from)).toBe(all.slice(log.droppedBytes))
})

test('what is appended while it turns is lost nowhere', async () => {
  const log = new BoundedLog(path, 0, { keptBytes: 100 })
  writeFileSync(path, 'a'.repeat(2 ** 20))
  const turning = log.turn()
  let appended = 0
  const writer = setInterval(() => {
    appendFileSync(path, 'b')
    appended++
  }, 0)
  await turning
  clearInterval(writer)
  expect(log.totalBytes).toBe(2 ** 20 + appended)
  const kept = readFileSync(`${path}.1`, 'utf8') + readFileSync(path, 'utf8')
  expect(kept === 'a'.repeat(2 ** 20) + 'b'.repeat(appended)).toBe(true)
})

test('a log that was removed has not grown', async () => {
  writeFileSync(path, 'x'.repeat(100))
  const log = new BoundedLog(path, 0, { keptBytes: 10 })
  expect(log.totalBytes).toBe(100)
  rmSync(path)
  expect([log.totalBytes, await log.turn(), existsSync(path)]).toEqual([100, false, false])
})

test('its last lines are read without the rest', () => {
  expect(lastLines(path, 4)).toEqual([])
  writeFileSync(path, `${'x\n'.repeat(2 ** 20)}one\ntwo\n`)
  expect(lastLines(path, 2)).toEqual(['one', 'two'])
})

test('a text is replaced whole, by shorter and by longer ones', () => {
  for (const length of [10, 5, 3_000, 20_000, 1]) {
    replaceInPlace(path, 'y'.repeat(length))
    expect(readFileSync(path, 'utf8').trimEnd()).toBe('y'.repeat(length))
    expect(statSync(path).mode & 0o777).toBe(0o600)
  }
})

test('a program that is started as QEMU is cannot write more, and goes on', async () => {
  const log = openSync(path, 'a')
  const said = join(directory, 'goes on')
  const child = spawnQemu({
    program: 'sh',
    args: ['-c', `head -c ${4 * logBytesMax} /dev/zero; echo alive > '${said}'`],
    directory,
    log,
    deviceState: log,
    environment: { PATH: process.env.PATH },
    unlimited: false,
  })
  await once(child, 'exit')
  closeSync(log)
  expect(statSync(path).size).toBe(logBytesMax)
  expect(readFileSync(said, 'utf8')).toBe('alive\n')
})

test('a program that is not there', () => {
  const start = { args: [], directory, log: 1, deviceState: 1, environment: {}, unlimited: false }
  for (const program of ['/nowhere/qemu', 'no-such-program-at-all'])
    expect(() => spawnQemu({ ...start, program })).toThrow(expect.objectContaining({ code: 'QEMU_MISSING' }))
})
