/** Runs an agent as a process: one for each state directory, its API on a unix socket, until a signal ends it. */
import { chmodSync, mkdirSync, rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { SubpageError } from '../errors.ts'
import { parseAddress } from './address.ts'
import { Agent } from './agent.ts'
import { buildApi } from './api.ts'
import { AgentClient } from './client.ts'

export interface ServeOptions {
  stateDirectory: string
  listen: string
  hostName?: string
}

export const apiSocket = (stateDirectory: string) => join(resolve(stateDirectory), 'api.sock')

/** Where an agent keeps its state unless told otherwise: /run/subpage for root, the session's directory for others. */
export function defaultStateDirectory(): string {
  if (process.getuid?.() === 0) return '/run/subpage'
  return join(process.env.XDG_RUNTIME_DIR ?? `/tmp/subpage-${process.getuid?.()}`, 'subpage')
}

/**
 * Resolves when the agent serves; it ends by SIGTERM or SIGINT.
 * @throws SubpageError AGENT_RUNNING, ADDRESS_IN_USE
 */
export async function serve(options: ServeOptions): Promise<Agent> {
  const { stateDirectory } = options
  const socket = apiSocket(stateDirectory)
  mkdirSync(resolve(stateDirectory), { recursive: true, mode: 0o700 })
  await refuseSecondAgent(socket)
  const agent = await Agent.start(
    stateDirectory,
    options.hostName ?? hostname(),
    parseAddress(options.listen),
  )
  const api = buildApi(agent)
  // The socket of an agent that was killed: nobody answers on it.
  rmSync(socket, { force: true })
  process.umask(0o177)
  await api.listen({ path: socket })
  process.umask(0o077)
  chmodSync(socket, 0o600)

  const end = () => {
    agent.close()
    rmSync(socket, { force: true })
    process.exit(0)
  }
  process.once('SIGTERM', end)
  process.once('SIGINT', end)
  return agent
}

async function refuseSecondAgent(socket: string): Promise<void> {
  const other = await new AgentClient(socket).status().catch((error) => {
    if (error instanceof SubpageError && error.code === 'AGENT_UNREACHABLE') return undefined
    throw error
  })
  if (other)
    throw new SubpageError('AGENT_RUNNING', `agent ${other.host} (process ${other.pid}) serves ${socket}`)
}
