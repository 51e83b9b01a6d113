/**
 * Whether a standby sees the primary's guest itself, and may therefore believe what its process does. Equal boot ids do
 * not show it: containers of one machine have PID namespaces of their own, /proc can hide the processes of others, and a
 * machine that was cloned while it ran has the boot id of the first. So it is proven at each hello, while the primary lives:
 * its supervisor and its guest are found where it says they are, and the supervisor holds open a file with the name that it tells.
 * What is not proven is unknown; the standby then waits for the primary's silence and asks the arbiter.
 */
import type { Hello } from './messages.ts'

/** What the operating system shows; simulated in tests. */
export interface Sight {
  /** Of this host; undefined when no process can be seen. */
  space: () => { bootId: string; pidNamespace: string } | undefined
  fate: (process: Hello['source']['process']) => 'runs' | 'gone' | 'unseen'
  /** Whether the process, which runs, holds the token open. */
  holds: (process: Hello['source']['process'], token: Token) => boolean
}

/**
 * What has become of the guest's process: it runs; it has ended, and its supervisor, which lives, knows whether that was meant;
 * or nobody is there any more who could say.
 */
export type SourceFate = 'runs' | 'ended' | 'gone'

/** A file that a process holds open under a name that nobody else can have. */
export interface Token {
  descriptor: number
  name: string
}

export class SourceSight {
  readonly #sight: Sight
  readonly #proven = new WeakSet<Hello['source']>()

  constructor(sight: Sight) {
    this.#sight = sight
  }

  /** A primary has said hello, and lives. */
  meet({ source }: Hello): void {
    const { space, fate, holds } = this.#sight
    const { supervisor } = source
    const here = space()
    const proven =
      supervisor !== undefined &&
      here !== undefined &&
      source.bootId === here.bootId &&
      supervisor.pidNamespace === here.pidNamespace &&
      fate(supervisor.process) === 'runs' &&
      holds(supervisor.process, supervisor.token) &&
      fate(source.process) === 'runs'
    if (proven) this.#proven.add(source)
  }

  /** Undefined when it cannot be seen from here. */
  fate({ source }: Hello): SourceFate | undefined {
    if (!this.#proven.has(source)) return undefined
    const guest = this.#sight.fate(source.process)
    if (guest === 'unseen') return undefined
    if (guest === 'runs') return 'runs'
    return source.supervisor && this.#sight.fate(source.supervisor.process) === 'runs' ? 'ended' : 'gone'
  }
}
