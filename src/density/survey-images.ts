/** What `density analyze` is given: raw images, sparse or not, ELF cores, images of LiME, and the RAM files of guests. */
import { statSync } from 'node:fs'
import { SubpageError } from '../errors.ts'
import { type MemoryImage, openImage } from '../memory/images/memory-image.ts'
import { pageBytes } from '../memory/page.ts'
import type { SurveyImage } from './survey.ts'

/**
 * An image, of which counts what the file holds: what was left out of a core takes nobody's memory. Holes of a raw image are
 * pages that are zero.
 * @throws SubpageError BAD_ARGUMENT, IMAGE_MALFORMED
 */
export function surveyImage(path: string, name = path): SurveyImage {
  const image = openImage(path)
  try {
    return { name, path, extents: image.extents, partial: partialPages(image) }
  } finally {
    image.close()
  }
}

function partialPages(image: MemoryImage): Uint8Array {
  const pages = new Uint8Array(image.partial.length * pageBytes)
  for (const [index, page] of image.partial.entries())
    image.read(page, pages.subarray(index * pageBytes, (index + 1) * pageBytes))
  return pages
}

/**
 * The RAM file of a guest: memory from its first byte to its last, whatever the guest has written there.
 * @throws SubpageError BAD_ARGUMENT
 */
export function ramImage(path: string, name: string): SurveyImage {
  try {
    return { name, path, extents: [{ offset: 0, bytes: statSync(path).size }] }
  } catch (cause) {
    throw new SubpageError(
      'BAD_ARGUMENT',
      `the memory of ${name} cannot be read: ${(cause as Error).message}`,
      {
        cause,
      },
    )
  }
}
