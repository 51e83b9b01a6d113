/** What `density analyze` is given: raw images, sparse or not, ELF cores, and the RAM files of guests. */
import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { SubpageError } from '../errors.ts'
import { elfMagic } from '../memory/images/elf-core.ts'
import { openImage } from '../memory/images/memory-image.ts'
import { pageBytes } from '../memory/page.ts'
import type { SurveyImage } from './survey.ts'

/**
 * A raw image, or a core, of which counts what the file holds: what was left out of it takes nobody's memory.
 * @throws SubpageError BAD_ARGUMENT, IMAGE_MALFORMED
 */
export function surveyImage(path: string, name = path): SurveyImage {
  const raw = rawImage(path, name)
  if (!attempt(path, () => startsWith(path, elfMagic))) return raw
  const core = openImage(path)
  core.close()
  return { name, path, extents: core.extents.filter(({ bytes }) => bytes > 0) }
}

function startsWith(path: string, wanted: Buffer): boolean {
  const fd = openSync(path, 'r')
  try {
    const start = Buffer.alloc(wanted.length)
    readSync(fd, start, 0, start.length, 0)
    return start.equals(wanted)
  } finally {
    closeSync(fd)
  }
}

/**
 * A file that is memory from its first byte to its last; a last page that is cut short counts as whole.
 * @throws SubpageError BAD_ARGUMENT
 */
export function rawImage(path: string, name = path): SurveyImage {
  const size = attempt(path, () => {
    const status = statSync(path)
    if (!status.isFile()) throw new Error('it is not a regular file')
    return status.size
  })
  if (size === 0) throw new SubpageError('BAD_ARGUMENT', `${path} is empty: give an image of memory`)
  return { name, path, extents: [{ offset: 0, bytes: Math.ceil(size / pageBytes) * pageBytes }] }
}

function attempt<T>(path: string, look: () => T): T {
  try {
    return look()
  } catch (cause) {
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${path} cannot be read as an image of memory: ${(cause as Error).message}`,
      { cause },
    )
  }
}
