/**
 * A reaction to a promise that can be taken back. A guest outlives many protections of it, and what has once been given to
 * `then` of its `ended` stays there until then, with all that it holds.
 */
type Listener = (value: never) => void

const listenersOf = new WeakMap<Promise<unknown>, Set<Listener>>()

export interface Reaction {
  /** Resolves when the reaction is over. */
  done: Promise<void>
  /** It will not come any more, unless it has begun. */
  forget(): void
}

export function whenEnded<T>(promise: Promise<T>, react: (value: T) => Promise<void>): Reaction {
  const listeners = listenersOf.get(promise) ?? listenTo(promise)
  let listener!: Listener
  const done = new Promise<void>((resolve, reject) => {
    listener = (value: T) => void react(value).then(resolve, reject)
  })
  listeners.add(listener)
  return { done, forget: () => listeners.delete(listener) }
}

function listenTo<T>(promise: Promise<T>): Set<Listener> {
  const listeners = new Set<Listener>()
  listenersOf.set(promise, listeners)
  void promise.then((value) => {
    // Whoever comes later has a set of its own.
    listenersOf.delete(promise)
    for (const listener of listeners) listener(value as never)
  })
  return listeners
}
