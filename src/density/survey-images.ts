/** What `density analyze` is given: raw images, sparse or not, and the RAM files of guests. */
import { statSync } from 'node:fs'
import { SubpageError } from '../errors.ts'
import { pageBytes } from '../memory/page.ts'
import type { SurveyImage } from './survey.ts'

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
