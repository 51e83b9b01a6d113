/**
 * One agent for one state directory: two would end each other's standbys. The lock is an abstract unix socket (unix(7))
 * named after the directory's inode: the kernel gives it to one process and takes it back however that one ends.
 */
import { statSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { errorCode, SubpageError } from '../errors.ts'
import { AgentClient } from './client.ts'

/** How long another agent has to say its name for the message. */
const answerMs = 2_000

/** Held until closed, or until this process ends. @throws SubpageError AGENT_RUNNING */
export async function lockState(stateDirectory: string, apiSocket: string): Promise<Server> {
  const { dev, ino } = statSync(stateDirectory)
  const lock = createServer((connection) => connection.destroy())
  try {
    await new Promise<void>((resolve, reject) => {
      lock.once('error', reject)
      lock.listen(`\0subpage-agent-${dev}-${ino}`, resolve)
    })
  } catch (error) {
    if (errorCode(error) !== 'EADDRINUSE') throw error
    const other = await Promise.race([
      // Whoever holds the lock need not answer to be in the way.
      new AgentClient(apiSocket).status().catch(() => undefined),
      new Promise<undefined>((resolve) => setTimeout(resolve, answerMs, undefined)),
    ])
    const who = other ? `agent ${other.host} (process ${other.pid})` : 'another agent'
    throw new SubpageError('AGENT_RUNNING', `${who} serves ${stateDirectory}`)
  }
  return lock.unref()
}
