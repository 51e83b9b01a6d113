/** What somebody asks of a primary and waits for: a protection that begins, a comparison, a switchover. Each can be cancelled where that is safe. */
import { SubpageError } from '../errors.ts'
import type { Pause } from './guest.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Protection } from './protection.ts'
import type { ProgressFigures } from './seed-progress.ts'
import type { Succession } from './succession.ts'
import { assertArbitrated, handOver } from './switchover.ts'
import type { Tasks } from './tasks.ts'
import { type Verification, Verifier } from './verifier.ts'

export const operationKinds = ['protect', 'verify', 'switchover'] as const

export interface Operation {
  kind: (typeof operationKinds)[number]
  /** A switchover is not once the guest stands still for it. */
  cancellable: boolean
  /** Null while it waits, and of a switchover. */
  progress: ProgressFigures | null
}

export interface OperationsOptions {
  protection: Protection
  succession: Succession
  tasks: Tasks
  /** Over which a standby is connected. */
  session: () => PrimarySession | undefined
  /** Told of the pause of a switchover, and of its end. */
  held: (pause: Pause | undefined) => void
}

export class Operations {
  readonly #options: OperationsOptions
  readonly #verifier: Verifier
  /** Of a switchover; `undefined` in it once it was begun. */
  #switchover: { waits: AbortController | undefined } | undefined
  /** Somebody asked for this protection, which has not committed a checkpoint yet. */
  protecting = false

  constructor(options: OperationsOptions) {
    this.#options = options
    this.#verifier = new Verifier(options.protection, options.tasks, options.session)
  }

  /** What a comparison has found last. */
  get verified(): Verifier['found'] {
    return this.#verifier.found
  }

  /** @param seeding how far the standby has been brought up */
  current(seeding: ProgressFigures | undefined): Operation | undefined {
    const { progress } = this.#verifier
    if (this.#switchover)
      return { kind: 'switchover', cancellable: this.#switchover.waits !== undefined, progress: null }
    if (progress) return { kind: 'verify', cancellable: true, progress }
    return this.protecting ? { kind: 'protect', cancellable: true, progress: seeding ?? null } : undefined
  }

  verify(): Promise<Verification> {
    return this.#verifier.verify()
  }

  /** Moves the guest to the standby. @throws SubpageError ARBITER_UNREACHABLE without an arbiter, NOT_PROTECTED, CANCELLED */
  async switchover(): Promise<void> {
    const { protection, succession, tasks, held } = this.#options
    assertArbitrated(succession)
    const asked = { waits: new AbortController() as AbortController | undefined }
    const { signal } = asked.waits!
    this.#switchover ??= asked
    try {
      await tasks.add<void>(async (session, epoch, done) => {
        asked.waits = undefined
        await handOver(protection, session, epoch, held, done)
        return undefined
      }, signal)
    } finally {
      if (this.#switchover === asked) this.#switchover = undefined
    }
  }

  /** Of a comparison or a switchover; whoever waits for it gets CANCELLED. */
  cancel(kind: 'verify' | 'switchover'): void {
    const why = new SubpageError('CANCELLED', `the ${kind} was cancelled; the guest is protected as before`)
    if (kind === 'verify') this.#verifier.cancel(why)
    else this.#switchover?.waits?.abort(why)
  }
}
