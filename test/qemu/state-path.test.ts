/** The state directory by all its names, and the lengths that a socket bears. */
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { pairSocket } from '../../src/agent/address.ts'
import { apiSocket } from '../../src/agent/state-directory.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { tapName } from '../../src/qemu/nic.ts'
import { socketPathBytesMax } from '../../src/qemu/state-path.ts'

const base = realpathSync(mkdtempSync(join(tmpdir(), 'subpage-state-')))
afterAll(() => rmSync(base, { recursive: true }))
const real = join(base, 'real')
mkdirSync(join(real, 'sub'), { recursive: true })
symlinkSync(real, join(base, 'link'))
symlinkSync('link', join(base, 'far'))
symlinkSync(join(real, 'sub'), join(base, 'into'))

test.each([
  ['through a link', join(base, 'link')],
  ['through a link to a link', join(base, 'far')],
  ['relative', relative(process.cwd(), real)],
  ['relative, through a link', relative(process.cwd(), join(base, 'link'))],
  ['with a slash behind it', `${real}/`],
  ['with dots', `${base}/real/sub/.././`],
  ['with slashes twice', `${base}//real`],
])('%s it is the same', (_, name) => {
  const [one, other] = [guestFiles(real, 'g'), guestFiles(name, 'g')]
  expect([other.ram, other.accesses]).toEqual([one.ram, one.accesses])
  expect(tapName(other.directory, 0)).toBe(tapName(one.directory, 0))
})

test('others are others, and one that is not there yet is what it will be', () => {
  expect(guestFiles(join(real, 'sub'), 'g').ram).not.toBe(guestFiles(real, 'g').ram)
  const [byName, byLink] = ['real', 'link'].map((name) => join(base, name, 'new', 'state'))
  const before = guestFiles(byLink!, 'g').ram
  expect(before).toBe(guestFiles(byName!, 'g').ram)
  mkdirSync(byName!, { recursive: true })
  expect(guestFiles(byLink!, 'g').ram).toBe(before)
})

test('a path that can be no directory is refused, and says why', () => {
  writeFileSync(join(base, 'file'), '')
  symlinkSync('round', join(base, 'round'))
  for (const [path, why] of [
    [join(base, 'file/state'), /a part of its path is no directory/],
    ['/dev/null/state', /a part of its path is no directory/],
    [join(base, 'round/state'), /links lead round in a circle/],
  ] as const)
    expect(() => guestFiles(path, 'g')).toThrow(
      expect.objectContaining({ code: 'BAD_ARGUMENT', message: expect.stringMatching(why) }),
    )
})

test('a path that no socket can have is refused, with its length and what to do', () => {
  const of = (length: number, letter = 'x') => `/${letter.repeat(length - 1)}`
  const most = socketPathBytesMax - '/api.sock'.length
  expect(apiSocket(of(most))).toHaveLength(socketPathBytesMax)
  for (const path of [apiSocket, pairSocket])
    expect(() => path(of(most + 1))).toThrow(
      expect.objectContaining({
        code: 'BAD_ARGUMENT',
        message: expect.stringMatching(/ has 10[89] bytes.*choose a shorter --state/),
      }),
    )
  // It is bytes that count.
  expect(() => apiSocket(of(60, 'ä'))).toThrow(/bytes/)
  expect(() => guestFiles(of(60), 'g')).not.toThrow()
  expect(() => guestFiles(of(60), 'g'.repeat(63))).toThrow(/choose a shorter/)
})
