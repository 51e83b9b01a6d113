/** The agent that a command speaks to: the one that --api names, by its socket or over TCP, or that of --state. */
import { readToken } from '../agent/api-token.ts'
import { AgentClient } from '../agent/client.ts'
import { isLoopback } from '../agent/loopback.ts'
import { apiSocket, defaultStateDirectory } from '../agent/state-directory.ts'
import { SubpageError } from '../errors.ts'
import { readInput } from '../input-file.ts'
import type { Flag, Invocation } from './command.ts'

export const agentFlags: Flag[] = [
  { form: '--state <dir>', summary: 'state directory of the agent (default: /run/subpage for root)' },
  {
    form: '--api <socket-or-url>',
    summary: 'API of the agent: its socket, or https://HOST:PORT (default: api.sock in the state directory)',
  },
  { form: '--api-token-file <file>', summary: 'file with the token for an API over TCP' },
  { form: '--tls-ca <file>', summary: 'CA of the agent, for an API over TCP (default: those of the system)' },
]

export function stateOf({ flags }: Invocation): string {
  return flags.state === undefined ? defaultStateDirectory() : String(flags.state)
}

/** @throws SubpageError BAD_ARGUMENT, SECRET_EXPOSED */
export function agentOf(invocation: Invocation): AgentClient {
  const { api } = invocation.flags
  if (api === undefined) return new AgentClient(apiSocket(stateOf(invocation)))
  return /^https?:/.test(String(api)) ? remoteAgent(invocation, String(api)) : new AgentClient(String(api))
}

function remoteAgent({ flags }: Invocation, api: string): AgentClient {
  if (!URL.canParse(api)) throw new SubpageError('BAD_ARGUMENT', `--api ${api}: write https://HOST:PORT`)
  const url = new URL(api)
  // A token in clear text stays on this machine.
  if (
    url.protocol === 'http:' &&
    url.hostname !== 'localhost' &&
    !isLoopback(url.hostname.replace(/[[\]]/g, ''))
  )
    throw new SubpageError('TLS_REQUIRED', `${api} would send the token in clear text: use https`)
  const tokenFile = flags.apiTokenFile
  if (tokenFile === undefined)
    throw new SubpageError('BAD_ARGUMENT', `${api} asks for a token: give --api-token-file`)
  return new AgentClient({
    url,
    token: readToken(String(tokenFile)),
    ...(flags.tlsCa === undefined ? {} : { ca: readInput(String(flags.tlsCa), 'the CA') }),
  })
}
