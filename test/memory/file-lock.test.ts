/** The lock of a file: one holder at a time, and nothing stays open of who did not get it. */
import { closeSync, fstatSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { lockFile } from '../../src/memory/file-lock.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-lock-'))
afterAll(() => rmSync(directory, { recursive: true }))

/** The kernel gives the lowest descriptor that is free. */
function nextDescriptor(): number {
  const fd = openSync(directory, 'r')
  closeSync(fd)
  return fd
}

test.each([
  ['a directory', directory, 'r'],
  ['a file that it makes', join(directory, 'file'), 'a'],
])('one at a time has the lock of %s', (_, path, flags) => {
  const free = nextDescriptor()
  const lock = lockFile(path, flags, 0o600)
  expect(fstatSync(lock!.fd).isDirectory()).toBe(path === directory)
  const held = nextDescriptor()
  expect(lockFile(path, flags, 0o600)).toBeUndefined()
  expect(nextDescriptor()).toBe(held)
  lock!.release()
  expect(nextDescriptor()).toBe(free)
  const again = lockFile(path)
  expect(again).toBeDefined()
  again!.release()
})

test('a file that is not there is an error of the file system', () => {
  expect(() => lockFile(join(directory, 'none'))).toThrow(expect.objectContaining({ code: 'ENOENT' }))
})
