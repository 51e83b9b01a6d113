/**
 * The files that a guest may read on this host: kernel, initrd, firmware, read-only disks. They must lie in directories
 * that the operator of this host has set apart for it, because a peer names them: without this rule, whoever may have a
 * standby here could read any file of this host from inside a guest.
 */
import { realpathSync, statSync } from 'node:fs'
import { join, normalize, sep } from 'node:path'
import { SubpageError } from '../errors.ts'
import { packageRoot } from '../memory/native.ts'

/** Directories that guests may always read from: subpage's own, and firmware that the distribution makes readable for all. */
export const imageDirectories: readonly string[] = [
  '/var/lib/subpage/images',
  join(packageRoot, 'build/guest'),
  ...['qemu', 'seabios', 'ovmf', 'OVMF'].map((name) => join('/usr/share', name)),
]

/** Adds the directories of `--images`, separated by colons. @throws SubpageError BAD_ARGUMENT */
export function readImageDirectories(given: string | undefined): string[] {
  const added = given ? given.split(':') : []
  for (const directory of added)
    if (!directory.startsWith('/') || normalize(directory) === '/')
      throw new SubpageError('BAD_ARGUMENT', `--images: "${directory}" is not the whole path of a directory`)
  return [...added, ...imageDirectories]
}

/**
 * Why a guest may not read this file; undefined when it may. About files elsewhere nothing is found out, so that a peer
 * cannot ask which ones exist.
 */
export function imageRefusal(path: string, directories: readonly string[]): string | undefined {
  if (!path.startsWith('/')) return 'give the whole path of the file, beginning with /'
  if (path.includes('\0')) return 'a path has no NUL in it'
  const outside = `${path} is not in a directory from which guests may read (${directories[0]}, …; add others with subpage agent --images)`
  if (!directories.some((directory) => within(normalize(path), normalize(directory)))) return outside
  const real = attempt(() => realpathSync(path))
  if (real === undefined) return `${path} does not exist on this host; it must be on both`
  // A symbolic link must not lead out of the directories, which may be links themselves.
  const allowed = directories.flatMap((directory) => attempt(() => realpathSync(directory)) ?? [])
  if (!allowed.some((directory) => within(real, directory))) return outside
  if (!attempt(() => statSync(real))?.isFile()) return `${path} is not a regular file`
  return undefined
}

/** Whether a path lies beneath a directory; both normalized. */
export function within(path: string, directory: string): boolean {
  return path.startsWith(directory.endsWith(sep) ? directory : directory + sep)
}

function attempt<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch {
    // Whatever the reason, it cannot be read; the caller says so.
    return undefined
  }
}
