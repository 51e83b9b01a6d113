/**
 * The API over TCP, off unless asked for: whoever asks shows the token of `--api-token-file`, and beyond this machine the
 * connection is TLS 1.3 with the certificate of the host. Clients need no certificate.
 */
import type { Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { errorCode, SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { Access, type Rights } from './access.ts'
import { formatAddress, type TcpAddress } from './address.ts'
import type { Agent } from './agent.ts'
import { buildApi } from './api.ts'
import { readToken } from './api-token.ts'
import type { Credentials } from './credentials.ts'
import { addDashboard, isPublic } from './dashboard.ts'
import { type Log, logRequests } from './log.ts'
import { loopbackAddress } from './loopback.ts'
import { addMetrics } from './metrics-route.ts'

export interface ApiListenOptions {
  address: TcpAddress
  tokenFile: string
  /** Of a token that may only read. */
  readTokenFile: string | undefined
  credentials: (() => Credentials) | undefined
  log: Log | undefined
}

const connectionsMax = limits.apiConnections.value

export interface ListeningApi {
  access: Access
  address: TcpAddress
  /** What a browser opens. */
  origin: string
}

/** @throws SubpageError TLS_REQUIRED, ADDRESS_IN_USE, SECRET_EXPOSED, BAD_ARGUMENT */
export async function listenApi(
  agent: Agent,
  { address, tokenFile, readTokenFile, credentials, log }: ApiListenOptions,
): Promise<ListeningApi> {
  const operate = readToken(tokenFile)
  const read = readTokenFile === undefined ? undefined : readToken(readTokenFile)
  const host = credentials ? address.host : await assertLoopback(address)
  return await open(
    agent,
    new Access({ operate, ...(read !== undefined && { read }) }),
    { host, port: address.port },
    address,
    credentials,
    log,
  )
}

/** Without TLS. @returns the address @throws SubpageError TLS_REQUIRED */
export async function assertLoopback(address: TcpAddress): Promise<string> {
  const host = await loopbackAddress(address.host)
  if (host !== undefined) return host
  throw new SubpageError(
    'TLS_REQUIRED',
    `the API on ${formatAddress(address)} would show its token to the network: start the agent with --tls-ca, --tls-cert and --tls-key (subpage cert makes them), or listen on 127.0.0.1`,
  )
}

/** For the dashboard alone, on this machine alone: no token of a file opens it. */
export const listenLoopback = (agent: Agent, log: Log | undefined): Promise<ListeningApi> => {
  const address = { host: '127.0.0.1', port: 0 }
  return open(agent, new Access({}), address, address, undefined, log)
}

async function open(
  agent: Agent,
  access: Access,
  at: TcpAddress,
  address: TcpAddress,
  credentials: (() => Credentials) | undefined,
  log: Log | undefined,
): Promise<ListeningApi> {
  const check = async (authorization: string | undefined, method: string, path: string) => {
    if (!isPublic(method, path)) await access.check(authorization, needsOf(method, path))
  }
  const api = buildApi(agent, credentials ? { check, server: secureServer(credentials) } : { check })
  if (log) logRequests(api, log)
  addMetrics(api, agent)
  await addDashboard(api, agent, access)
  try {
    await api.listen(at)
  } catch (error) {
    throw errorCode(error) === 'EADDRINUSE'
      ? new SubpageError('ADDRESS_IN_USE', `${formatAddress(address)} is taken by another program`)
      : new SubpageError('BAD_ARGUMENT', `cannot listen on ${formatAddress(address)}: ${String(error)}`)
  }
  api.server.maxConnections = connectionsMax
  const bound = api.server.address()
  const port = bound !== null && typeof bound === 'object' ? bound.port : address.port
  const reached = { host: address.host, port }
  return { access, address: reached, origin: `${credentials ? 'https' : 'http'}://${formatAddress(reached)}` }
}

/** What is on a guest's screen is not for everybody who may see how it is protected; watching its memory costs the guest. */
export const needsOf = (method: string, path: string): Rights =>
  method === 'GET' && !/\/(screenshot|working-set)$/.test(path) ? 'read' : 'operate'

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
