/** Which files a guest may read: those in directories for images, whatever links say. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { imageRefusal, readImageDirectories } from '../../src/qemu/image-files.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-images-'))
const images = [join(directory, 'images')]
const outside = join(directory, 'secret')
mkdirSync(join(directory, 'images'))
for (const path of [outside, join(directory, 'images/vmlinuz')]) writeFileSync(path, 'x')
symlinkSync(outside, join(directory, 'images/link'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

test('nothing is told about files elsewhere', () => {
  const [there, not] = ['/etc/passwd', '/etc/no-such-file'].map((path) => imageRefusal(path, images))
  expect(there?.replace('passwd', '')).toBe(not?.replace('no-such-file', ''))
})

test('a directory may itself be a link', () => {
  const alias = join(directory, 'alias')
  symlinkSync(images[0] ?? '', alias)
  expect(imageRefusal(join(alias, 'vmlinuz'), [alias])).toBeUndefined()
  expect(imageRefusal(join(alias, 'link'), [alias])).toMatch(/not in a directory/)
})

test('directories whose name only begins alike are others', () => {
  mkdirSync(join(directory, 'images-secret'))
  writeFileSync(join(directory, 'images-secret/x'), '')
  expect(imageRefusal(join(directory, 'images-secret/x'), images)).toMatch(/not in a directory/)
})

test('--images takes whole paths, and not everything', () => {
  expect(readImageDirectories('/srv/a:/srv/b').slice(0, 2)).toEqual(['/srv/a', '/srv/b'])
  for (const given of ['srv', '/', '/srv:', '/srv/..'])
    expect(() => readImageDirectories(given)).toThrow(/whole path of a directory/)
})
