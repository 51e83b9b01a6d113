/** An addon for another processor or C library: the message says which, and the command that builds one here. */
import { closeSync, copyFileSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { foreignBuild } from '../../src/memory/foreign-build.ts'
import { load, packageRoot } from '../../src/memory/native.ts'

const built = join(packageRoot, 'build/native/subpage.node')
const folder = mkdtempSync(join(tmpdir(), 'subpage-foreign-'))
afterAll(() => rmSync(folder, { recursive: true }))

const forMachine = (machine: number) => {
  const path = join(folder, `${machine}.node`)
  copyFileSync(built, path)
  const file = openSync(path, 'r+')
  writeSync(file, Uint8Array.of(machine, 0), 0, 2, 18)
  closeSync(file)
  return path
}

test('the addon of this host is none', () => {
  expect(foreignBuild(built)).toBeUndefined()
})

test.each([
  [183, 'aarch64'],
  [40, 'the ELF machine 40'],
])('one for the ELF machine %i names it, this host and the command', (machine, name) => {
  const addon = load(forMachine(machine))
  expect(() => addon.cpuPath()).toThrow(
    expect.objectContaining({
      code: 'ADDON_MISSING',
      message: expect.stringMatching(
        new RegExp(`built for ${name} and this host is x64.*npm run build:native`),
      ),
    }),
  )
})

test('what other hosts would say of this one', () => {
  expect(foreignBuild(built, { arch: 'arm64', glibc: '2.36' })).toBe(
    'it is built for x86-64 and this host is arm64',
  )
  expect(foreignBuild(built, { arch: 'x64', glibc: undefined })).toContain('another C library')
})

test('a file that is none of these says nothing', () => {
  const text = join(folder, 'text')
  writeFileSync(text, 'no ELF file, but long enough')
  for (const path of [text, join(folder, 'nothing'), folder]) expect(foreignBuild(path)).toBeUndefined()
})
