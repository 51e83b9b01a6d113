/** Reading pieces of a file as a whole: a short read goes on, and what lies behind the file's end is an error. */
import { readSync } from 'node:fs'
import { SubpageError } from '../../errors.ts'

/** @throws SubpageError IMAGE_MALFORMED when the file ends before */
export function readWhole(path: string, fd: number, at: number, into: Uint8Array): void {
  // An offset of 64 bits out of the file itself.
  if (!Number.isSafeInteger(at + into.length))
    throw new SubpageError('IMAGE_MALFORMED', `${path} is damaged: it names the byte ${at} of itself`)
  for (let filled = 0; filled < into.length; ) {
    const count = readSync(fd, into, filled, into.length - filled, at + filled)
    if (count === 0)
      throw new SubpageError(
        'IMAGE_MALFORMED',
        `${path} is cut short: it should have ${into.length} bytes at byte ${at}; take the image again`,
      )
    filled += count
  }
}
