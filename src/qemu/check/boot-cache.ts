/**
 * Remembers a probe's answer until the host boots anew or what it depends on changes. The folder is ours alone; where that
 * cannot be had, nothing is remembered and the probe runs again.
 */
import { lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runtimeDirectory } from '../../environment.ts'
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
  const next = `${file}.${process.pid}`
  try {
    writeFileSync(next, JSON.stringify({ key, bootId: bootId(), answer }), { mode: 0o600 })
    renameSync(next, file)
  } catch {
    rmSync(next, { force: true }) // A full disk: the probe runs again next time.
  }
}

/** Undefined when the folder is another user's, or cannot be made: /tmp is open to all. */
export function bootCacheFile(name: string): string | undefined {
  const uid = process.getuid?.()
  const runtime = runtimeDirectory()
  const ours = join(tmpdir(), `subpage-${uid}`)
  const levels = runtime ? [join(runtime, 'subpage-check')] : [ours, join(ours, 'check')]
  try {
    for (const level of levels) {
      makeFolder(level)
      const { uid: owner, mode } = lstatSync(level)
      if (owner !== uid || (mode & 0o022) !== 0) return undefined
    }
    return join(levels.at(-1)!, `${name}.json`)
  } catch {
    return undefined // Nothing depends on the cache but time.
  }
}

/** One level only: below a file system that takes no folders, such as /proc, Node's `recursive` never returns. */
function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error
  }
}
