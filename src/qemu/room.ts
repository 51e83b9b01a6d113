/** Files that can be written anew however full their file system is, and what is said when there is no room. */
import { closeSync, existsSync, fstatSync, openSync, renameSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { errorCode, SubpageError } from '../errors.ts'
import { addon } from '../memory/native.ts'

/** EFBIG: a limit of the process or of the file system. */
const noRoom = /^(ENOSPC|EDQUOT|EFBIG)$/
const blockBytes = 4096
/** A file has room for a content this many times as long as its first one. */
const growth = 2

/** Errors for want of room say so; all others stay as they are. @param what must be written, and where */
export function withRoom<T>(what: string, write: () => T): T {
  try {
    return write()
  } catch (error) {
    throw wantOfRoom(what, error)
  }
}

export function wantOfRoom(what: string, error: unknown): unknown {
  return noRoom.test(errorCode(error) ?? '')
    ? new SubpageError('NO_SPACE', `no room for ${what}: its file system is full`, { cause: error })
    : error
}

/** Resolves when what was last written to a file, and its name, outlast a loss of power. Off the event loop. */
export async function syncToDisk(path: string): Promise<void> {
  for (const synced of [path, dirname(path)]) {
    await using handle = await open(synced, 'r')
    await handle.sync()
  }
}

/**
 * Replaces a text file at one moment, so that it is whole whenever this process ends. Its room is reserved by the first
 * write: there are two files, of which one is written and then exchanged with the other. The text is followed by spaces.
 * @throws SubpageError NO_SPACE the first time, or when the text has grown beyond its room
 */
export function replaceInPlace(path: string, text: string): void {
  const next = `${path}.next`
  withRoom(path, () => {
    const fresh = !existsSync(path)
    fill(next, text)
    if (fresh) {
      renameSync(next, path)
      fill(next, text)
    } else exchange(next, path)
  })
}

function fill(path: string, text: string): void {
  // Neither cut nor made anew: that would give its room away.
  const fd = existsSync(path) ? openSync(path, 'r+') : openSync(path, 'w', 0o600)
  try {
    const content = Buffer.from(text)
    const room = content.length <= fstatSync(fd).size ? fstatSync(fd).size : roomFor(content.length)
    const whole = Buffer.concat([content, Buffer.alloc(room - content.length, ' ')])
    for (let at = 0; at < whole.length; ) at += writeSync(fd, whole, at, whole.length - at, at)
  } finally {
    closeSync(fd)
  }
}

const roomFor = (bytes: number) => Math.ceil((growth * bytes) / blockBytes) * blockBytes

function exchange(next: string, path: string): void {
  try {
    addon.exchangeFiles(next, path)
  } catch (error) {
    // Some file systems cannot: there the next write needs room again.
    if (!/^(EINVAL|ENOSYS)$/.test(errorCode(error) ?? '')) throw error
    renameSync(next, path)
  }
}
