/** Files that hold a secret: private keys, tokens. One that others on this host can read is no secret, and is refused. */
import { closeSync, fstatSync, readFileSync } from 'node:fs'
import { SubpageError } from '../errors.ts'
import { openInput } from '../input-file.ts'

const bytesMax = 64 * 1024

/** @throws SubpageError SECRET_EXPOSED, BAD_ARGUMENT; no message quotes what is in the file */
export function readSecretFile(path: string, what: string): Buffer {
  const fd = openInput(path, what)
  try {
    const { mode, uid, size } = fstatSync(fd)
    if ((mode & 0o077) !== 0)
      throw new SubpageError(
        'SECRET_EXPOSED',
        `${what} ${path} can be read or written by others (mode ${(mode & 0o777).toString(8).padStart(4, '0')}): chmod 600 ${path}`,
      )
    if (uid !== 0 && uid !== process.getuid?.())
      throw new SubpageError(
        'SECRET_EXPOSED',
        `${what} ${path} belongs to user ${uid}, who can read it: make it your own`,
      )
    if (size > bytesMax) throw new SubpageError('BAD_ARGUMENT', `${what} ${path} is too long`)
    return readFileSync(fd)
  } finally {
    closeSync(fd)
  }
}
