/** A directory that nobody else on this host can look into. */
import { lstatSync } from 'node:fs'
import { SubpageError } from '../errors.ts'
import { kindOfFile } from '../input-file.ts'
import { makeFolders } from '../output-file.ts'

/**
 * Makes it, or makes sure that one which exists is private already: in /tmp somebody else may have been faster.
 * @throws SubpageError SECRET_EXPOSED, BAD_ARGUMENT
 */
export function makePrivateDirectory(path: string): void {
  makeFolders(path, path, 0o700)
  const found = lstatSync(path)
  if (!found.isDirectory())
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${path} is ${found.isSymbolicLink() ? 'a link' : kindOfFile(found)}, not a directory: choose another --state`,
    )
  if (found.uid !== process.getuid?.())
    throw new SubpageError('SECRET_EXPOSED', `${path} belongs to user ${found.uid}: choose another --state`)
  if ((found.mode & 0o077) !== 0)
    throw new SubpageError('SECRET_EXPOSED', `others can look into ${path}: chmod 700 ${path}`)
}
