/** The agent that a command speaks to: the one whose API socket --api names, or that of --state. */
import { AgentClient } from '../agent/client.ts'
import { apiSocket, defaultStateDirectory } from '../agent/serve.ts'
import type { Flag, Invocation } from './command.ts'

export const agentFlags: Flag[] = [
  { form: '--state <dir>', summary: 'state directory of the agent (default: /run/subpage for root)' },
  { form: '--api <socket>', summary: 'API socket of the agent (default: api.sock in the state directory)' },
]

export function stateOf({ flags }: Invocation): string {
  return flags.state === undefined ? defaultStateDirectory() : String(flags.state)
}

export function agentOf(invocation: Invocation): AgentClient {
  const { api } = invocation.flags
  return new AgentClient(api === undefined ? apiSocket(stateOf(invocation)) : String(api))
}
