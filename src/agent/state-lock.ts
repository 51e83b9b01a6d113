/**
 * One agent for one state directory: two would end each other's standbys. The lock is flock(2) on the directory itself, so it
 * holds by whatever path, mount or namespace an agent reaches it. The kernel takes it back however the agent ends.
 */
import { SubpageError } from '../errors.ts'
import { type FileLock, lockFile } from '../memory/file-lock.ts'
import { AgentClient } from './client.ts'

/** How long another agent has to say its name for the message. */
const answerMs = 2_000

/** Held until it is released, or until this process ends. @throws SubpageError AGENT_RUNNING */
export async function lockState(stateDirectory: string, apiSocket: string): Promise<FileLock> {
  const lock = lockFile(stateDirectory)
  if (lock) return lock
  const other = await Promise.race([
    // Whoever holds the lock need not answer to be in the way.
    new AgentClient(apiSocket).status().catch(() => undefined),
    new Promise<undefined>((resolve) => setTimeout(resolve, answerMs, undefined)),
  ])
  const who = other ? `agent ${other.host} (process ${other.pid})` : 'another agent'
  throw new SubpageError('AGENT_RUNNING', `${who} serves ${stateDirectory}`)
}
