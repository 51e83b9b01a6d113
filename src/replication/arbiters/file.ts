/**
 * Arbiter in a directory that both hosts see: on one machine, or on shared storage such as NFS.
 *
 * ROOT/GUEST/GENERATION holds a decision. It is written under a temporary name, synced, and then linked to its own:
 * link(2) fails when the name exists, on NFS too, and the file is whole from its first moment on. Whatever link(2)
 * answers (an NFS server may repeat a request that succeeded), the file then says who won. No answer is given before the
 * directory is synced, not even by somebody who only read it: what was told must not be lost with the power.
 *
 * ROOT is never created: what is made on this host alone would accept claims that the other cannot see. For the same
 * reason it should be a directory within the share, not the mount point, which is there without the share too.
 */
import { randomUUID } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { constants } from 'node:fs'
import { type FileHandle, link, mkdir, open, readdir, stat, unlink } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import { errorCode, SubpageError } from '../../errors.ts'
import type { Arbiter, Holder } from '../arbiter.ts'
import {
  checkMark,
  decisionBytesMax,
  decodeDecision,
  encodeClaim,
  type Question,
  question,
} from './decision.ts'
import { within } from './patience.ts'

export interface FileArbiterOptions {
  /** A disk that hangs is waited for that long. Default 3 s. */
  limitMs?: number
}

/** Marks, and temporary files of those who died while they claimed, are removed after that long. */
const keptMs = 60_000

/** Guests whose directories are recognized again. */
const foldersMax = 4096

/** What may be removed begins with a dot; decisions never do. */
const disposable = { temporary: '.claim-', mark: '.mark-' }

export class FileArbiter implements Arbiter {
  readonly description: string
  readonly #root: string
  readonly #limitMs: number
  readonly #closed = new AbortController()
  /** Of the directory when it was first seen. */
  #inode: bigint | undefined
  /** Of the guests' directories, by guest. */
  readonly #folders = new Map<string, string>()
  memory = 0
  /** One call at a time: a server that hangs may then hold one thread of libuv's four, not all of them. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(root: string, { limitMs = 3_000 }: FileArbiterOptions = {}) {
    if (!isAbsolute(root) || /\p{Cc}/u.test(root))
      throw new SubpageError(
        'BAD_ARGUMENT',
        `${JSON.stringify(root)} cannot hold decisions: give the directory's absolute path`,
      )
    this.#root = root
    this.#limitMs = limitMs
    this.description = `file ${root}`
    // One for each call under way.
    setMaxListeners(0, this.#closed.signal)
  }

  async claim(guest: string, generation: number, claimant: string, signal?: AbortSignal): Promise<Holder> {
    const asked = question(guest, generation)
    const { text } = encodeClaim(asked, claimant)
    return await this.#inTurn(signal, async (givenUp) => {
      const folder = await this.#folder(asked.guest)
      await this.#recognize(asked.guest)
      // Asked first, so that an old decision can be had from a full disk too.
      const known = await readDecision(folder, asked)
      if (known) return known
      const failure = await publish(folder, String(generation), text, givenUp)
      const holder = await readDecision(folder, asked)
      if (holder) return holder
      throw failure ?? new Error(`${join(folder, String(generation))} was there and is gone`)
    })
  }

  async holder(guest: string, generation: number, signal?: AbortSignal): Promise<Holder | undefined> {
    const asked = question(guest, generation)
    return await this.#inTurn(signal, async () => {
      await this.#checkRoot()
      await this.#recognize(asked.guest)
      return await readDecision(join(this.#root, asked.guest), asked)
    })
  }

  async leaveMark(mark: string): Promise<void> {
    checkMark(mark)
    await this.#inTurn(undefined, async (givenUp) => {
      const folder = await this.#folder('marks')
      // By link too: a file system without hard links is found out when a pair is made, not when it breaks.
      const failure = await publish(folder, disposable.mark + mark, '', givenUp)
      if (failure) throw failure
    })
  }

  async seesMark(mark: string): Promise<boolean> {
    checkMark(mark)
    return await this.#inTurn(undefined, async () => {
      await this.#checkRoot()
      const file = await openFresh(join(this.#root, 'marks'), disposable.mark + mark)
      await file?.close()
      return file !== undefined
    })
  }

  close(): void {
    this.#closed.abort()
  }

  async #inTurn<T>(signal: AbortSignal | undefined, run: (givenUp: AbortSignal) => Promise<T>): Promise<T> {
    const patience = {
      limitMs: this.#limitMs,
      signal,
      closed: this.#closed.signal,
      expired: () => this.#unreachable(`no answer within ${this.#limitMs / 1000} s; does its server hang?`),
    }
    return await within(patience, (givenUp) => {
      const turn = this.#last.then(async () => {
        givenUp.throwIfAborted()
        return await run(givenUp)
      })
      // Whoever made that call has its error; the next one has its own turn.
      this.#last = turn.catch(() => undefined)
      return turn.catch((error) => {
        if (error instanceof SubpageError || givenUp.aborted) throw error
        throw this.#unreachable(explain(error), error)
      })
    })
  }

  #unreachable(why: string, cause?: unknown): SubpageError {
    return new SubpageError('ARBITER_UNREACHABLE', `the arbiter in ${this.#root} cannot answer: ${why}`, {
      cause,
    })
  }

  /**
   * Refuses a directory that somebody else could write decisions to, and one that took another's place: when a share is
   * unmounted, its mount point comes to light, where nothing is decided yet.
   */
  async #checkRoot(): Promise<void> {
    const { ino, mode } = await stat(this.#root, { bigint: true })
    if ((mode & 0o022n) !== 0n)
      throw this.#unreachable('other users may write to it. Take that right away: chmod go-w')
    this.#inode ??= ino
    if (this.#inode !== ino)
      throw this.#unreachable(
        'this is another directory than before. Is the share mounted? If it was replaced for good, restart the agent',
      )
  }

  /** One that is gone, or another than before: what was decided about the guest was removed, or restored from a backup. */
  async #recognize(guest: string): Promise<void> {
    const found = await stat(join(this.#root, guest), { bigint: true }).catch((error) => {
      if (errorCode(error) === 'ENOENT') return undefined
      throw error
    })
    const known = this.#folders.get(guest)
    // The number of one that was removed is soon used again.
    const identity = found && `${found.ino} ${found.birthtimeNs}`
    if (known !== undefined && known !== identity) this.memory++
    this.#folders.delete(guest)
    if (identity === undefined) return
    this.#folders.set(guest, identity)
    const [oldest] = this.#folders.keys()
    if (this.#folders.size > foldersMax && oldest !== undefined) this.#folders.delete(oldest)
  }

  /** A directory for its owner alone, below the root; made when it is missing. */
  async #folder(name: string): Promise<string> {
    await this.#checkRoot()
    const folder = join(this.#root, name)
    await mkdir(folder, { mode: 0o700 }).catch((error) => {
      if (errorCode(error) !== 'EEXIST') throw error
    })
    await using root = await open(this.#root, constants.O_RDONLY | constants.O_DIRECTORY)
    await root.sync()
    return folder
  }
}

/** Resolves to what link(2) failed with, if not with success: the name may be there nevertheless. */
async function publish(
  folder: string,
  name: string,
  text: string,
  givenUp: AbortSignal,
): Promise<Error | undefined> {
  const temporary = join(folder, disposable.temporary + randomUUID())
  let failure: Error | undefined
  try {
    const bornMs = await writeNew(temporary, text)
    await sweep(folder, bornMs)
    givenUp.throwIfAborted()
    await link(temporary, join(folder, name)).catch((error) => {
      if (errorCode(error) !== 'EEXIST') failure = error
    })
  } finally {
    // Never made, or swept away by another claimant; should it stay, it does no harm and is swept later.
    await unlink(temporary).catch(() => undefined)
  }
  await using directory = await openFolder(folder)
  await directory?.sync()
  return failure
}

/** @returns its time of birth by the clock of the file system */
async function writeNew(path: string, text: string): Promise<number> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
  await using file = await open(path, flags, 0o600)
  await file.writeFile(text)
  await file.sync()
  return (await file.stat()).mtimeMs
}

/**
 * Removes old marks and temporary files. Their age is the difference of two times that the file system gave: the clocks of
 * the hosts do not matter.
 */
async function sweep(folder: string, nowMs: number): Promise<void> {
  try {
    for (const name of await readdir(folder)) {
      if (!name.startsWith('.')) continue
      const path = join(folder, name)
      if (nowMs - (await stat(path)).mtimeMs > keptMs) await unlink(path)
    }
  } catch {
    // Another claimant sweeps as well, or the file is not ours: tidiness must not stand in the way of a decision.
  }
}

/** Undefined: nobody has claimed it. When it resolves, the answer is on disk. */
async function readDecision(folder: string, asked: Question): Promise<Holder | undefined> {
  const path = join(folder, String(asked.generation))
  await using file = await openFresh(folder, String(asked.generation))
  if (!file) return undefined
  const status = await file.stat()
  const text = status.isFile() && status.size <= decisionBytesMax ? await file.readFile('utf8') : ''
  const holder = decodeDecision(text, asked, path)
  await using directory = await openFolder(folder)
  await directory?.sync()
  return holder
}

/** Undefined when there is no such file. */
async function openFresh(folder: string, name: string): Promise<FileHandle | undefined> {
  // Opening the directory makes an NFS client ask its server whether names were added (close-to-open consistency).
  await using directory = await openFolder(folder)
  if (!directory) return undefined
  // Not to be led elsewhere by a symbolic link, nor to wait for the writer of a pipe.
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  return await orMissing(open(join(folder, name), flags))
}

async function openFolder(folder: string): Promise<FileHandle | undefined> {
  return await orMissing(open(folder, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW))
}

async function orMissing(opening: Promise<FileHandle>): Promise<FileHandle | undefined> {
  try {
    return await opening
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

function explain(error: unknown): string {
  const remedies: Record<string, string> = {
    EACCES: 'the agent may not write there; make its user the owner',
    EDQUOT: 'the quota is used up',
    ENOENT: 'it does not exist. Is the share mounted? Create it once, as `mkdir -m 700` does',
    ENOSPC: 'its file system is full; make room',
    ENOTDIR: 'it is not a directory',
    EOPNOTSUPP: 'its file system has no hard links; use another',
    EPERM: 'it is immutable, or its file system has no hard links; use another',
    EROFS: 'its file system is read-only',
    ESTALE: 'the server has exchanged it; mount the share anew',
  }
  const remedy = remedies[errorCode(error) ?? '']
  const message = error instanceof Error ? error.message : String(error)
  return remedy ? `${remedy} (${message})` : message
}
