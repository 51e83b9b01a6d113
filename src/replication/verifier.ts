/** Compares all that a guest has with what its standby has: its memory (verify.ts), then its disks (verify-disks.ts). */
import { SubpageError } from '../errors.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Protection } from './protection.ts'
import type { Tasks } from './tasks.ts'
import { type MemoryVerification, verify } from './verify.ts'
import { type DiskVerification, verifyDisks } from './verify-disks.ts'

export interface Verification extends MemoryVerification {
  disks: DiskVerification[]
}

export class Verifier {
  readonly #protection: Protection
  readonly #tasks: Tasks
  readonly #session: () => PrimarySession | undefined
  #last: Promise<unknown> = Promise.resolve()
  /** What was found last, and when; milliseconds since 1970. */
  found: { at: number; verification: Verification } | undefined

  /** @param session over which a standby is connected */
  constructor(protection: Protection, tasks: Tasks, session: () => PrimarySession | undefined) {
    this.#protection = protection
    this.#tasks = tasks
    this.#session = session
  }

  /** One at a time. @throws SubpageError NOT_PROTECTED, PEER_UNREACHABLE, DISK_FAILED, … */
  verify(): Promise<Verification> {
    const all = () => this.#all()
    const verified = this.#last.then(all, all)
    this.#last = verified
    return verified
  }

  async #all(): Promise<Verification> {
    const memory = await this.#tasks.add<MemoryVerification>(async (session, epoch, done) => {
      const { report, verification } = await verify(this.#protection, session, epoch)
      done(verification)
      return report
    })
    const disks = await verifyDisks({
      protection: this.#protection,
      session: () => this.#connected,
      inPause: (run) =>
        this.#tasks.add<void>(async (session, epoch, done) => {
          const report = await run(session, epoch)
          done()
          return report
        }),
    })
    const equal = memory.equal && disks.every(({ difference }) => difference === undefined)
    if (!equal) this.#protection.lineages.forget()
    const verification = { ...memory, equal, disks }
    // The wall clock, for people.
    this.found = { at: Date.now(), verification }
    return verification
  }

  get #connected(): PrimarySession {
    const session = this.#session()
    if (session) return session
    throw new SubpageError('NOT_PROTECTED', 'the connection to the standby was lost meanwhile')
  }
}
