/**
 * One state and one table of transitions, as data. A change that the table does not hold is an invariant that is broken: the
 * process of the guest ends, and that of no other guest. docs/protocol.md shows the tables.
 */
import { invariant } from '../errors.ts'

/** For each state: each event that may happen in it, and the state afterwards. */
export type Transitions<S extends string, E extends string> = {
  readonly [state in S]: { readonly [event in E]?: S }
}

export interface Change<S extends string, E extends string> {
  from: S
  event: E
  to: S
}

export class StateMachine<S extends string, E extends string> {
  readonly #transitions: Transitions<S, E>
  #state: S
  #latest: Change<S, E> | undefined

  constructor(transitions: Transitions<S, E>, first: S) {
    this.#transitions = transitions
    this.#state = first
  }

  get state(): S {
    return this.#state
  }

  /** The last event, also one that changed nothing. */
  get latest(): Readonly<Change<S, E>> | undefined {
    return this.#latest
  }

  allows(event: E): boolean {
    return this.#transitions[this.#state][event] !== undefined
  }

  fire(event: E): void {
    const from = this.#state
    const to = this.#transitions[from][event]
    const last = this.#latest
    const before = last ? `; before that, "${last.event}" in state "${last.from}"` : ''
    invariant(to !== undefined, `"${event}" cannot happen in state "${from}"${before}`)
    this.#state = to
    this.#latest = { from, event, to }
  }
}
