/** The memory of probes: true for one key and one boot, silent wherever it cannot be trusted. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { bootCacheFile, readBootCache, writeBootCache } from '../../../src/qemu/check/boot-cache.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-boot-cache-'))
  vi.stubEnv('XDG_RUNTIME_DIR', folder)
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true })
})

test('answers for the same key only', () => {
  expect(readBootCache('probe', 'a')).toBeUndefined()
  writeBootCache('probe', 'a', { works: true })
  expect(readBootCache('probe', 'a')).toEqual({ works: true })
  expect(readBootCache('probe', 'b')).toBeUndefined()
  expect(readBootCache('other', 'a')).toBeUndefined()
})

test('forgets what an earlier boot found', () => {
  writeBootCache('probe', 'a', 1)
  const file = bootCacheFile('probe')!
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), bootId: 'another' }))
  expect(readBootCache('probe', 'a')).toBeUndefined()
})

test('a damaged file is no answer, and is replaced', () => {
  writeBootCache('probe', 'a', 1)
  writeFileSync(bootCacheFile('probe')!, '{"key": "a"')
  expect(readBootCache('probe', 'a')).toBeUndefined()
  writeBootCache('probe', 'a', 2)
  expect(readBootCache('probe', 'a')).toBe(2)
})

test('a folder that others may write to is not trusted', () => {
  writeBootCache('probe', 'a', 1)
  chmodSync(join(folder, 'subpage-check'), 0o777)
  expect(bootCacheFile('probe')).toBeUndefined()
  expect(readBootCache('probe', 'a')).toBeUndefined()
  writeBootCache('probe', 'a', 2)
})

test('without a folder nothing is remembered', () => {
  vi.stubEnv('XDG_RUNTIME_DIR', '/proc/nowhere')
  writeBootCache('probe', 'a', 1)
  expect(readBootCache('probe', 'a')).toBeUndefined()
})
