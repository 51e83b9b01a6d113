/** What a loss of power must not undo, and what it leaves: a host's identity, and the generation of a guest. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { claimantOf } from '../../src/agent/supervisor/host.ts'
import { guestFiles, readRecord } from '../../src/qemu/guest-files.ts'
import { replaceInPlace, syncToDisk } from '../../src/qemu/room.ts'
import { Succession } from '../../src/replication/succession.ts'
import { ScriptedArbiter } from '../replication/pair.ts'

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'subpage-durable-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

test('the identity of a host stays, and is of this host alone', () => {
  const [one, other] = [directory(), directory()]
  const claimant = claimantOf(one, 'north')
  expect(claimant).toMatch(/^north-[0-9a-f]{8}$/)
  expect(claimantOf(one, 'north')).toBe(claimant)
  expect(claimantOf(other, 'north')).not.toBe(claimant)
})

test.each([0, 1, 7, 8, 20, 35])('one that was cut short after %i bytes is refused, by name', (bytes) => {
  const path = directory()
  claimantOf(path, 'north')
  const file = join(path, 'host-id')
  truncateSync(file, bytes)
  expect(() => claimantOf(path, 'north')).toThrowError(
    expect.objectContaining({ code: 'STATE_DAMAGED', message: expect.stringContaining(file) }),
  )
  // Refused, not replaced: who knows who the arbiter takes us for.
  expect(readFileSync(file).length).toBe(bytes)
  rmSync(file)
  expect(claimantOf(path, 'north')).toMatch(/^north-[0-9a-f]{8}$/)
})

test('zeros in its place are no identity either', () => {
  const path = directory()
  writeFileSync(join(path, 'host-id'), Buffer.alloc(37))
  expect(() => claimantOf(path, 'north')).toThrowError(expect.objectContaining({ code: 'STATE_DAMAGED' }))
})

test('what was cut short before it had its name is made anew', () => {
  const path = directory()
  writeFileSync(join(path, 'host-id.next'), '0123')
  expect(claimantOf(path, 'north')).toMatch(/^north-[0-9a-f]{8}$/)
})

test.each(['', '{"format":1,', '\0'.repeat(4096)])(
  'a record that was cut short is an error that names it',
  (text) => {
    const files = guestFiles(directory(), 'kept')
    mkdirSync(files.directory, { recursive: true })
    writeFileSync(files.record, text)
    expect(() => readRecord(files)).toThrowError(
      expect.objectContaining({ code: 'STATE_DAMAGED', message: expect.stringContaining(files.record) }),
    )
  },
)

test('file and name are on the disk when it says so', async () => {
  const path = join(directory(), 'record')
  replaceInPlace(path, 'one')
  const handle = await open(path)
  const kinds: string[] = []
  const prototype = Object.getPrototypeOf(handle) as FileHandle
  const { sync } = prototype
  const spy = vi.spyOn(prototype, 'sync').mockImplementation(async function (this: FileHandle) {
    kinds.push((await this.stat()).isDirectory() ? 'directory' : 'file')
    await sync.call(this)
  })
  try {
    replaceInPlace(path, 'two')
    await syncToDisk(path)
  } finally {
    spy.mockRestore()
    await handle.close()
  }
  expect(kinds).toEqual(['file', 'directory'])
  expect(readFileSync(path, 'utf8').trim()).toBe('two')
})

test('a generation is granted to us when it is written down, not before', async () => {
  const arbiter = new ScriptedArbiter()
  let written: () => void = () => undefined
  const saving = new Promise<void>((resolve) => {
    written = resolve
  })
  const guest = '00000000-0000-4000-8000-000000000000'
  const succession = new Succession({
    ...{ guest, claimant: 'a', generation: 1, arbiter, arbitrated: true },
    save: () => saving,
  })
  await succession.anchor()
  let granted = false
  const claim = succession.claim().then(() => {
    granted = true
  })
  await expect.poll(() => succession.generation).toBe(2)
  await new Promise(setImmediate)
  expect(granted).toBe(false)
  written()
  await claim
  expect(granted).toBe(true)
})
