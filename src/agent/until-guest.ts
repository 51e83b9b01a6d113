/** Waits until a guest is what it is to be, for the demonstration and the trial. */
import { setTimeout as delay } from 'node:timers/promises'
import { SubpageError } from '../errors.ts'
import type { AgentClient } from './client.ts'
import type { GuestStatus } from './status.ts'

const lookMs = 10

/**
 * @param what it is to be, for people
 * @throws SubpageError GUEST_DIED when it is not within `limitMs`
 */
export async function untilGuest(
  client: AgentClient,
  name: string,
  what: string,
  found: (status: GuestStatus) => boolean,
  limitMs: number,
  signal: AbortSignal,
): Promise<GuestStatus> {
  const deadline = performance.now() + limitMs
  for (;;) {
    const status = await client.guest(name)
    if (found(status)) return status
    if (performance.now() > deadline)
      throw new SubpageError(
        'GUEST_DIED',
        `the guest was not ${what} within ${limitMs / 1000} s: it is ${status.state}, ${status.reason}`,
      )
    await delay(lookMs, undefined, { signal })
  }
}
