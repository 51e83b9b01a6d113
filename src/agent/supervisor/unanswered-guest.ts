/**
 * A guest that a former supervisor left, whose process runs and has not answered this one yet. It answers within milliseconds,
 * or hangs; then it stays this until it goes on or ends, and keeps nobody else waiting.
 */
import { SubpageError } from '../../errors.ts'
import type { GuestFiles } from '../../qemu/guest-files.ts'
import type { GuestRecord } from '../../qemu/guest-record.ts'
import { hangTimes } from '../../qemu/hang-watch.ts'
import type { AttachStep } from '../../qemu/qemu-process.ts'
import type { Present } from '../../replication/admission.ts'
import { successionOf } from './guest-succession.ts'
import type { HostFacts } from './host.ts'

const waitsFor: Record<AttachStep, string> = {
  connect: 'gives no answer on its control socket',
  answer: 'gives no answer to its first questions',
  unlock: 'stands still while the keeper of dense memory moves its pages',
}

export class UnansweredGuest {
  readonly kind = 'unanswered'
  readonly name: string
  readonly record: GuestRecord
  readonly files: GuestFiles
  readonly #host: HostFacts
  readonly #since = Date.now() // the wall clock, for people
  #step: AttachStep = 'connect'
  #close: () => void = () => undefined
  /** Resolves when it counts as hung. */
  readonly hung: Promise<void>

  constructor(record: GuestRecord, files: GuestFiles, host: HostFacts) {
    this.name = record.name
    this.record = record
    this.files = files
    this.#host = host
    this.hung = new Promise((resolve) => {
      this.#close = host.clock.after(hangTimes.hungMs, () => {
        host.events.add(this.name, 'guest', `hangs: ${this.reason}`)
        // A keeper that hangs with the pause of a guest is ended, by whoever looks for it.
        if (record.density) void host.density.endIfStuck(this.#step === 'unlock')
        resolve()
      })
    })
  }

  doing(step: AttachStep): void {
    this.#step = step
  }

  /** It answered, or has ended. */
  close(): void {
    this.#close()
  }

  get reason(): string {
    const { pid } = this.record.process
    const since = new Date(this.#since).toISOString()
    return `QEMU (process ${pid}) ${waitsFor[this.#step]} since this supervisor began, ${since}; it is found again when it goes on`
  }

  get error(): SubpageError {
    return new SubpageError('GUEST_HUNG', `${this.name}: ${this.reason}`)
  }

  /** As a primary that asks this host for a standby meets it: its copy may run, or go on at any time. */
  get present(): Present {
    const { id, generation } = this.record
    const succession = successionOf(this.record, this.#host)
    return {
      kind: 'running',
      id,
      claimant: this.#host.claimant,
      generation,
      successor: () => succession.successor(),
    }
  }
}
