/**
 * Where what fails for one guest ends. Work that nobody waits for, such as what follows an event, is done in here: its error
 * becomes an event of that guest, and whatever the guest makes of it. Unheard, it would end the supervisor, and with it the
 * standby image of the guest.
 */
import { asSubpageError, type SubpageError } from '../../errors.ts'
import type { EventLog } from '../event-log.ts'

export interface Boundary {
  events: EventLog
  guest: string
  /** What is being done, for the event. */
  doing: string
  /** What becomes of the guest. */
  failed?: (error: SubpageError) => void
}

export function guarded({ events, guest, doing, failed }: Boundary, work: () => unknown): void {
  const fail = (thrown: unknown) => {
    const error = asSubpageError(thrown)
    events.add(guest, 'guest', `${doing} failed: ${error.message}`)
    failed?.(error)
  }
  try {
    const result = work()
    if (result instanceof Promise) result.catch(fail)
  } catch (thrown) {
    fail(thrown)
  }
}
