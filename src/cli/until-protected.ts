/** Waits until a guest's first checkpoint is safe on its standby. */
import type { AgentClient } from '../agent/client.ts'
import type { GuestStatus } from '../agent/status.ts'
import { SubpageError } from '../errors.ts'

const pollMs = 50

/** @throws SubpageError GUEST_DIED, or NOT_PROTECTED when the protection was given up meanwhile */
export async function untilProtected(agent: AgentClient, name: string): Promise<GuestStatus> {
  for (;;) {
    const status = await agent.guest(name)
    if (status.tracker === null)
      throw new SubpageError(
        status.pid === null ? 'GUEST_DIED' : 'NOT_PROTECTED',
        `${name} was not protected: ${status.reason}`,
      )
    if (status.committed !== null && status.state !== 'Connecting') return status
    if (status.state === 'Connecting' && status.reason !== '')
      throw new SubpageError(
        'PEER_UNREACHABLE',
        `${name} is not protected yet (it goes on trying): ${status.reason}`,
      )
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
}
