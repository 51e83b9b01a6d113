/** Commands that wait for something an agent does: an interruption asks the agent to cancel it, and says what became of it. */
import type { AgentClient } from '../agent/client.ts'
import type { GuestStatus } from '../agent/status.ts'
import { asSubpageError, SubpageError } from '../errors.ts'
import { interruptible } from './interruption.ts'
import type { Output } from './output.ts'
import { progressBar } from './progress.ts'

const pollMs = 250
const words = { protect: 'seeding', verify: 'comparing', switchover: 'switching over' } as const

/**
 * Waits for `work`, and shows how far it is.
 * @param kind what the agent does meanwhile
 * @param left what is so once it was cancelled
 * @throws SubpageError INTERRUPTED after an interruption: it was cancelled, or goes on
 */
export function cancellable<T>(
  { agent, name, output }: { agent: AgentClient; name: string; output: Output },
  kind: keyof typeof words,
  left: string,
  work: () => Promise<T>,
): Promise<T> {
  return interruptible(async (signal) => {
    let operation: GuestStatus['operation'] | undefined
    let over = false
    const look = async () => {
      while (!over) {
        // What the command itself asks says what is wrong.
        operation = await agent.guest(name).then(
          (status) => status.operation,
          () => undefined,
        )
        await new Promise((resolve) => setTimeout(resolve, pollMs).unref())
      }
    }
    using _ = progressBar(
      output,
      words[kind],
      () => (operation?.kind === kind ? (operation.progress ?? undefined) : undefined),
      `${kind} of ${name}: waiting`,
    )
    const interrupted = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => void cancel(agent, name, kind, left).then(reject), {
        once: true,
      })
    })
    interrupted.catch(() => undefined) // Raced below; it may come when the work is over.
    const looked = look()
    try {
      const working = work()
      working.catch(() => undefined) // As above.
      return await Promise.race([working, interrupted])
    } catch (error) {
      // Cancelled by us: what we say of it is more.
      if (signal.aborted && asSubpageError(error).code === 'CANCELLED') return await interrupted
      throw error
    } finally {
      over = true
      void looked
    }
  })
}

/** What is said of copies that the other host keeps, or may keep that has not answered; nothing when there are none. */
export const stayingCopies = (copies: readonly string[], stay: 'stay' | 'may stay'): string =>
  copies.length > 0 ? `; copies of its disks ${stay} on the other host: ${copies.join(', ')}` : ''

/** @returns what to say of it */
async function cancel(agent: AgentClient, name: string, kind: string, left: string): Promise<SubpageError> {
  try {
    const { copies } = await agent.cancel(name)
    return new SubpageError(
      'INTERRUPTED',
      `the ${kind} of ${name} was cancelled: ${left}${stayingCopies(copies, 'may stay')}`,
    )
  } catch (error) {
    const { message } = asSubpageError(error)
    return new SubpageError(
      'INTERRUPTED',
      `the ${kind} of ${name} was not cancelled, and goes on without this command: ${message}`,
    )
  }
}
