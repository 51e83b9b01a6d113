/**
 * Remembers a probe's answer until the host boots anew or what it depends on changes. The folder is ours alone; where that
 * cannot be had, nothing is remembered and the probe runs again.
 */
import { lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { errorCode } from '../../errors.ts'
import { bootId } from '../process.ts'

/** @param key names everything that the answer depends on, beside this boot */
export function readBootCache<T>(name: string, key: string): T | undefined {
  const file = bootCacheFile(name)
  if (file === undefined) return undefined
  try {
    const entry = JSON.parse(readFileSync(file, 'utf8')) as { key: string; bootId: string; answer: T }
    return entry.key === key && entry.bootId === bootId() ? entry.answer : undefined
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    rmSync(file, { force: true })
    return undefined
  }
}

export function writeBootCache(name: string, key: string, answer: unknown): void {
  const file = bootCacheFile(name)
  if (file === undefined) return
  writeFileSync(`${file}.${process.pid}`, JSON.stringify({ key, bootId: bootId(), answer }), { mode: 0o600 })
  renameSync(`${file}.${process.pid}`, file)
}

/** Undefined when the folder is another user's, or cannot be made: /tmp is open to all. */
export function bootCacheFile(name: string): string | undefined {
  const runtime = process.env.XDG_RUNTIME_DIR
  const uid = process.getuid?.()
  const folder = runtime ? join(runtime, 'subpage-check') : join(tmpdir(), `subpage-${uid}`, 'check')
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    for (const level of runtime ? [folder] : [join(folder, '..'), folder]) {
      const { uid: owner, mode } = lstatSync(level)
      if (owner !== uid || (mode & 0o022) !== 0) return undefined
    }
    return join(folder, `${name}.json`)
  } catch {
    return undefined // Nothing depends on the cache but time.
  }
}
