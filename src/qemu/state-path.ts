/**
 * One state directory by whatever name it is reached: through a link, relative, with a slash behind it. What lies outside of it and
 * belongs to it, in /dev/shm and among the network devices, is named after where it really is.
 */
import { createHash } from 'node:crypto'
import { realpathSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { errorCode, SubpageError } from '../errors.ts'

/** A unix socket's path must fit in sockaddr_un (unix(7)). */
export const socketPathBytesMax = 107

/** Where it is, or will be when it is made. @throws SubpageError BAD_ARGUMENT when it can be nowhere */
function realPathOf(directory: string): string {
  const path = resolve(directory)
  try {
    return realpathSync(path)
  } catch (error) {
    const code = errorCode(error)
    if (code === 'ENOTDIR' || code === 'ELOOP' || code === 'EACCES')
      throw new SubpageError('BAD_ARGUMENT', `${path} cannot be a state directory: ${whyNot[code]}`, {
        cause: error,
      })
    if (code !== 'ENOENT' || path === dirname(path)) throw error
    return join(realPathOf(dirname(path)), basename(path))
  }
}

const whyNot = {
  ENOTDIR: 'a part of its path is no directory',
  ELOOP: 'its links lead round in a circle',
  EACCES: 'a part of its path may not be entered',
}

/** Tells apart what agents of one machine have outside of their state directories. */
export function stateTag(stateDirectory: string, length = 8): string {
  return createHash('sha256').update(realPathOf(stateDirectory)).digest('hex').slice(0, length)
}

/** Where the host's keeper has what it keeps. */
export const keeperDirectory = (stateDirectory: string) =>
  `/dev/shm/subpage-${stateTag(stateDirectory)}-density`

/** @throws SubpageError BAD_ARGUMENT when no socket can have this path: it would be cut off, and be another one */
export function socketPath(stateDirectory: string, leaf: string): string {
  const path = join(resolve(stateDirectory), leaf)
  const bytes = Buffer.byteLength(path)
  if (bytes > socketPathBytesMax)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${path} has ${bytes} bytes, and the path of a socket at most ${socketPathBytesMax}: choose a shorter --state, or a shorter name of the guest`,
    )
  return path
}
