/**
 * The API over TCP, off unless asked for: whoever asks shows the token of `--api-token-file`, and beyond this machine the
 * connection is TLS 1.3 with the certificate of the host. Clients need no certificate.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { setTimeout as delay } from 'node:timers/promises'
import { errorCode, SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { formatAddress, type TcpAddress } from './address.ts'
import type { Agent } from './agent.ts'
import { buildApi } from './api.ts'
import { readToken } from './api-token.ts'
import type { Credentials } from './credentials.ts'
import { loopbackAddress } from './loopback.ts'

export interface ApiListenOptions {
  address: TcpAddress
  tokenFile: string
  credentials: (() => Credentials) | undefined
}

const connectionsMax = limits.apiConnections.value
/** Guesses are answered one after another, each so much later. */
const failureMs = 250

/** @throws SubpageError TLS_REQUIRED, ADDRESS_IN_USE, SECRET_EXPOSED, BAD_ARGUMENT */
export async function listenApi(
  agent: Agent,
  { address, tokenFile, credentials }: ApiListenOptions,
): Promise<TcpAddress> {
  const check = tokenCheck(readToken(tokenFile))
  const host = credentials ? address.host : await loopbackAddress(address.host)
  if (host === undefined)
    throw new SubpageError(
      'TLS_REQUIRED',
      `the API on ${formatAddress(address)} would show its token to the network: start the agent with --tls-ca, --tls-cert and --tls-key (subpage cert makes them), or listen on 127.0.0.1`,
    )
  const api = buildApi(agent, credentials ? { check, server: secureServer(credentials) } : { check })
  try {
    await api.listen({ host, port: address.port })
  } catch (error) {
    throw errorCode(error) === 'EADDRINUSE'
      ? new SubpageError('ADDRESS_IN_USE', `${formatAddress(address)} is taken by another program`)
      : new SubpageError('BAD_ARGUMENT', `cannot listen on ${formatAddress(address)}: ${String(error)}`)
  }
  api.server.maxConnections = connectionsMax
  const bound = api.server.address()
  return {
    host: address.host,
    port: bound !== null && typeof bound === 'object' ? bound.port : address.port,
  }
}

const secureServer =
  (credentials: () => Credentials) => (handler: Parameters<typeof createHttpsServer>[1]) => {
    let current = credentials()
    const options = () => ({ cert: current.cert, key: current.key, minVersion: 'TLSv1.3' as const })
    const server = createHttpsServer({ ...options(), handshakeTimeout: 5_000 }, handler)
    // A renewed certificate serves from the next connection on.
    server.prependListener('connection', () => {
      if (credentials() === current) return
      current = credentials()
      server.setSecureContext(options())
    })
    // Fastify's types know one kind of server; what it uses is the same in both.
    return server as unknown as Server
  }

/** Compares digests, so that neither the time nor the length of a guess tells anything. */
function tokenCheck(token: string): (authorization: string | undefined) => Promise<void> {
  const digest = (text: string) => createHash('sha256').update(text).digest()
  const expected = digest(`Bearer ${token}`)
  let queue: Promise<unknown> = Promise.resolve()
  return async (authorization) => {
    if (authorization !== undefined && timingSafeEqual(digest(authorization), expected)) return
    queue = queue.then(() => delay(failureMs))
    await queue
    throw new SubpageError(
      'AUTH_REFUSED',
      authorization === undefined
        ? 'the API asks for its token: give --api-token-file'
        : 'the token is not that of this agent (--api-token-file)',
    )
  }
}
