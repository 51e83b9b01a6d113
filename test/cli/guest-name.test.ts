/** What a target on the command line means: a guest, or a file. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { guestName, isGuest } from '../../src/cli/guest-name.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-name-'))
mkdirSync(join(folder, 'web'))
writeFileSync(join(folder, 'a.trace'), '')
const before = process.cwd()
process.chdir(folder)
afterAll(() => {
  process.chdir(before)
  rmSync(folder, { recursive: true })
})

test.each([
  ['vm:a.trace', true],
  ['a.trace', false],
  // A directory of the name of a guest, as it may lie anywhere.
  ['web', true],
  ['nothing', true],
  ['./web', false],
  ['/nothing', false],
])('%s', (target, guest) => {
  expect(isGuest(target)).toBe(guest)
})

test('a guest has a name', () => {
  expect([guestName('vm:web'), guestName('web')]).toEqual(['web', 'web'])
  expect(() => guestName('vm:')).toThrow(/names no guest/)
})
