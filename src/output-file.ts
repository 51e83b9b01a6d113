/**
 * Files that a command writes to where a user says. One rule for all of them: the file is written beside its place, as
 * NAME.part, and gets its name when it is whole; until then an older file stays as it is. A file that exists is replaced
 * only if the user asked for that (--force). A link to a file is followed, and stays a link. /dev/null takes anything and
 * keeps nothing. Everything else is refused before any work is done: directories, pipes, sockets, devices, descriptors of a
 * process, links to nowhere. Nothing is ever removed but a part that was made here.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  realpathSync,
  renameSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { errorCode, SubpageError } from './errors.ts'
import { kindOfFile } from './input-file.ts'

export interface OutputOptions {
  /** An older file gives way. */
  replace: boolean
  /** Permissions of the file, before the umask. */
  mode?: number
}

/** What is written first to see whether there is room. */
const probeBytes = 4096
const partsMax = 1000

/**
 * Finds out, by trying, whether `path` can be written; leaves nothing behind.
 * @throws SubpageError FILE_EXISTS, BAD_ARGUMENT, NO_SPACE, OUTPUT_FAILED
 */
export function checkOutput(path: string, options: OutputOptions): void {
  const file = new OutputFile(path, options)
  try {
    file.write(Buffer.alloc(probeBytes))
  } finally {
    file.abandon()
  }
}

/** Writes a whole file. @throws as checkOutput */
export function writeOutput(path: string, content: string | Uint8Array, options: OutputOptions): void {
  const file = new OutputFile(path, options)
  try {
    file.write(typeof content === 'string' ? Buffer.from(content) : content)
    file.finish()
  } catch (error) {
    file.abandon()
    throw error
  }
}

/** Makes a folder for several outputs, and finds out whether it can be written. @throws as checkOutput */
export function makeOutputFolder(path: string, mode = 0o777): void {
  const full = resolve(path)
  refuseDescriptors(path)
  const found = statOf(full, path)
  if (found && !found.isDirectory()) throw refused(path, `is ${kindOfFile(found)}, not a folder`)
  if (!found) makeFolders(full, path, mode)
  try {
    accessSync(full, constants.W_OK | constants.X_OK)
  } catch (cause) {
    throw failed(path, cause)
  }
}

/** A level at a time: where no folder can be made, as below /proc, Node's `recursive` never returns. */
export function makeFolders(full: string, path: string, mode: number): void {
  if (existsSync(full)) return
  makeFolders(dirname(full), path, mode)
  try {
    mkdirSync(full, mode)
  } catch (cause) {
    if (errorCode(cause) !== 'EEXIST') throw failed(path, cause)
  }
}

export class OutputFile {
  /** As the user wrote it. */
  readonly path: string
  readonly #final: string
  readonly #replace: boolean
  /** Where the bytes are until they are whole; undefined when nothing is kept. */
  readonly #part: string | undefined
  #fd: number | undefined

  /** Opens it. @throws as checkOutput */
  constructor(path: string, { replace, mode = 0o666 }: OutputOptions) {
    this.path = path
    this.#replace = replace
    const place = placeOf(path)
    this.#final = place.full
    if (place.exists && !replace && !place.discards) throw exists(path)
    if (place.discards) this.#fd = openSync(place.full, 'w')
    else [this.#part, this.#fd] = openPart(place.full, path, mode)
  }

  /** Where what was written lies until `finish`. */
  get partPath(): string {
    return this.#part ?? this.path
  }

  /** All of it, or an error. */
  write(bytes: Uint8Array): void {
    if (this.#fd === undefined) throw new TypeError(`the file ${this.path} is closed`)
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at)
    } catch (cause) {
      throw failed(this.path, cause)
    }
  }

  /** Forgets what was written after the first `bytes`. */
  cut(bytes: number): void {
    if (this.#fd === undefined) throw new TypeError(`the file ${this.path} is closed`)
    if (this.#part === undefined) return
    ftruncateSync(this.#fd, bytes)
    // Writes go on at the position of the descriptor.
    closeSync(this.#fd)
    this.#fd = openSync(this.#part, 'a')
  }

  /** It is whole: it gets its name. @throws SubpageError */
  finish(): void {
    this.#close(true)
    if (this.#part !== undefined) this.#rename(this.#part)
  }

  #rename(part: string): void {
    try {
      if (this.#replace) {
        renameSync(part, this.#final)
        return
      }
      // Fails when somebody else has made a file of this name meanwhile.
      linkSync(part, this.#final)
      unlinkSync(part)
    } catch (cause) {
      const code = errorCode(cause)
      if (code === 'EEXIST')
        throw new SubpageError('FILE_EXISTS', `${this.path} exists by now; what was written is ${part}`, {
          cause,
        })
      // File systems without hard links.
      if (this.#replace || existsSync(this.#final)) throw failed(this.path, cause)
      renameSync(part, this.#final)
    }
  }

  /** Gives it up and removes the part; harmless afterwards. */
  abandon(): void {
    if (this.#fd === undefined) return
    this.#close(false)
    if (this.#part !== undefined) unlinkSync(this.#part)
  }

  /** Closes it as it is, without its name, unless that is free. @returns where it is */
  leave(): string {
    this.#close(false)
    if (this.#part === undefined) return this.path
    if (existsSync(this.#final)) return this.#part
    this.#rename(this.#part)
    return this.path
  }

  #close(durable: boolean): void {
    if (this.#fd === undefined) return
    const fd = this.#fd
    try {
      // What a file system had no room for may show only now.
      if (durable && this.#part !== undefined) fsyncSync(fd)
    } catch (cause) {
      throw failed(this.path, cause)
    }
    this.#fd = undefined
    closeSync(fd)
  }
}

interface Place {
  /** Links are resolved. */
  full: string
  exists: boolean
  discards: boolean
}

function placeOf(path: string): Place {
  refuseDescriptors(path)
  if (path.endsWith('/')) throw refused(path, 'names a directory, not a file')
  const full = resolve(path)
  const found = statOf(full, path)
  if (!found) {
    if (isLink(full)) throw refused(path, 'is a link to a file that is not there')
    return { full, exists: false, discards: false }
  }
  const real = realpathSync(full)
  refuseDescriptors(real)
  if (found.isFile()) return { full: real, exists: true, discards: false }
  if (found.isCharacterDevice() && found.rdev === statSync('/dev/null').rdev)
    return { full: real, exists: true, discards: true }
  throw refused(path, `is ${kindOfFile(found)}, not a file`)
}

function statOf(full: string, path: string): Stats | undefined {
  try {
    return statSync(full)
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return undefined
    throw failed(path, cause)
  }
}

function isLink(full: string): boolean {
  return lstatSync(full, { throwIfNoEntry: false })?.isSymbolicLink() === true
}

/** Behind these is whatever the process was started with; a file there is somebody else's. */
function refuseDescriptors(path: string): void {
  if (
    /^\/dev\/(stdin|stdout|stderr|fd(\/.*)?)$|^\/proc\/[^/]+\/(task\/[^/]+\/)?fd(\/.*)?$/.test(resolve(path))
  )
    throw refused(path, 'is a stream of a process, not a file')
}

/** A name that is free, so that the remains of a command that was killed stay as well. */
function openPart(full: string, path: string, mode: number): [string, number] {
  const folder = dirname(full)
  for (let i = 1; i <= partsMax; i++) {
    const part = join(folder, `${basename(full)}.part${i === 1 ? '' : i}`)
    try {
      return [part, openSync(part, 'wx', mode)]
    } catch (cause) {
      if (errorCode(cause) !== 'EEXIST') throw failed(path, cause)
    }
  }
  throw refused(path, `has ${partsMax} unfinished files beside it (${basename(full)}.part…): remove them`)
}

const exists = (path: string) =>
  new SubpageError('FILE_EXISTS', `${path} exists: choose another name, or replace it with --force`)

const refused = (path: string, why: string) =>
  new SubpageError('BAD_ARGUMENT', `cannot write ${path}: it ${why}`)

const noRoom = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])
/** Those that name a wrong place; others befall a right one. */
const wrongPlace = new Set([
  'EACCES',
  'EPERM',
  'EROFS',
  'ENOENT',
  'ENOTDIR',
  'EISDIR',
  'ELOOP',
  'ENAMETOOLONG',
  'EINVAL',
  'EXDEV',
])

function failed(path: string, cause: unknown): unknown {
  const code = errorCode(cause)
  if (code === undefined) return cause
  const words: Record<string, string> = {
    ENOSPC: 'no room on its file system',
    EDQUOT: 'the quota is used up',
    EFBIG: 'it would be larger than files may be here',
    EACCES: 'not allowed here',
    EROFS: 'its file system is read-only',
    // The kernel's answer where nothing can be made, too, as in /proc.
    ENOENT: existsSync(dirname(path)) ? 'nothing can be made in its folder' : 'its folder is not there',
    ENOTDIR: 'its folder is a file',
    ENAMETOOLONG: 'its name is too long',
  }
  const kind = noRoom.has(code) ? 'NO_SPACE' : wrongPlace.has(code) ? 'BAD_ARGUMENT' : 'OUTPUT_FAILED'
  return new SubpageError(
    kind,
    `cannot write ${path}: ${words[code] ?? (cause as Error).message} (${code})`,
    { cause },
  )
}
