/** What a guest's supervisor says of each interval of watching its memory, passed on by the agent. */
import { asSubpageError, SubpageError } from '../errors.ts'
import type { SupervisedGuest } from './supervised-guest.ts'
import type { WatchListener, WatchQuery } from './supervisor/memory-watch.ts'

/** @returns ends it @throws SubpageError what the supervisor answers */
export async function passSamples(
  guest: SupervisedGuest,
  query: WatchQuery,
  listener: WatchListener,
): Promise<() => void> {
  const { name } = guest
  const ending = new AbortController()
  const samples = await guest.ask((client) => client.startWatch(name, query, ending.signal))
  const pass = async () => {
    for await (const sample of samples) listener.sample(sample)
    listener.failed(new SubpageError('GUEST_DIED', `the supervisor of ${name} has ended`))
  }
  void pass().catch((error) => {
    if (!ending.signal.aborted) listener.failed(asSubpageError(error))
  })
  return () => ending.abort()
}
