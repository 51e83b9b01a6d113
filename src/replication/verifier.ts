/** Compares all that a guest has with what its standby has: its memory (verify.ts), then its disks (verify-disks.ts). */
import { SubpageError } from '../errors.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Protection } from './protection.ts'
import { figuresOf, type ProgressFigures } from './seed-progress.ts'
import type { Tasks } from './tasks.ts'
import { type MemoryVerification, verify } from './verify.ts'
import { type DiskVerification, verifyDisks } from './verify-disks.ts'

export interface Verification extends MemoryVerification {
  disks: DiskVerification[]
}

interface Comparing {
  doneBytes: number
  totalBytes: number
  startedAt: number
  cancelled: AbortController
}

export class Verifier {
  readonly #protection: Protection
  readonly #tasks: Tasks
  readonly #session: () => PrimarySession | undefined
  #last: Promise<unknown> = Promise.resolve()
  #now: Comparing | undefined
  /** What was found last, and when; milliseconds since 1970. */
  found: { at: number; verification: Verification } | undefined

  /** @param session over which a standby is connected */
  constructor(protection: Protection, tasks: Tasks, session: () => PrimarySession | undefined) {
    this.#protection = protection
    this.#tasks = tasks
    this.#session = session
  }

  /** One at a time. @throws SubpageError NOT_PROTECTED, PEER_UNREACHABLE, DISK_FAILED, CANCELLED, … */
  verify(): Promise<Verification> {
    const all = () => this.#all()
    const verified = this.#last.then(all, all)
    this.#last = verified
    return verified
  }

  /** How far it has come, while there is one. */
  get progress(): ProgressFigures | undefined {
    const { clock } = this.#protection
    const now = this.#now
    return now && figuresOf(now.doneBytes, now.totalBytes, clock.now() - now.startedAt)
  }

  /** The one that is under way, or waits for a checkpoint, rejects with this. @returns false when there is none */
  cancel(why: SubpageError): boolean {
    this.#now?.cancelled.abort(why)
    return this.#now !== undefined
  }

  async #all(): Promise<Verification> {
    const { guest, clock } = this.#protection
    const totalBytes = guest.ram.bytes + guest.disks.sizes.reduce((sum, bytes) => sum + bytes, 0)
    const now = { doneBytes: 0, totalBytes, startedAt: clock.now(), cancelled: new AbortController() }
    this.#now = now
    try {
      return await unlessCancelled(this.#compare(now), now.cancelled.signal)
    } finally {
      this.#now = undefined
    }
  }

  async #compare(now: Comparing): Promise<Verification> {
    const { guest, lineages } = this.#protection
    const memory = await this.#memory(now.cancelled.signal)
    now.cancelled.signal.throwIfAborted()
    now.doneBytes = guest.ram.bytes
    const disks = await this.#disks(now)
    const equal = memory.equal && disks.every(({ difference }) => difference === undefined)
    if (!equal) lineages.forget()
    const verification = { ...memory, equal, disks }
    // The wall clock, for people.
    this.found = { at: Date.now(), verification }
    return verification
  }

  /** A checkpoint and what its standby answers, which is not left half done. */
  #memory(signal: AbortSignal): Promise<MemoryVerification> {
    return this.#tasks.add<MemoryVerification>(async (session, epoch, done) => {
      const { report, verification } = await verify(this.#protection, session, epoch)
      done(verification)
      return report
    }, signal)
  }

  #disks(now: Comparing): Promise<DiskVerification[]> {
    return verifyDisks({
      protection: this.#protection,
      session: () => this.#connected,
      signal: now.cancelled.signal,
      compared: (bytes) => {
        now.doneBytes += bytes
      },
      inPause: (run) =>
        this.#tasks.add<void>(async (session, epoch, done) => {
          const report = await run(session, epoch)
          done()
          return report
        }, now.cancelled.signal),
    })
  }

  get #connected(): PrimarySession {
    const session = this.#session()
    if (session) return session
    throw new SubpageError('NOT_PROTECTED', 'the connection to the standby was lost meanwhile')
  }
}

/** What was begun ends by itself: it looks at the signal, too. */
async function unlessCancelled<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const cancelled = new Promise<never>((_, reject) => {
    const end = () => reject(signal.reason)
    if (signal.aborted) end()
    else signal.addEventListener('abort', end, { once: true })
  })
  // Its failure after that is nobody's.
  work.catch(() => undefined)
  return await Promise.race([work, cancelled])
}
