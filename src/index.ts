/**
 * subpage for programs: the client of an agent's API, which the command line uses, too. docs/client.md shows it at work; the
 * types of what goes in and comes out are those of the API's schemas.
 */
import { AgentClient, type ApiEndpoint } from './agent/client.ts'
import { apiSocket, defaultStateDirectory } from './agent/state-directory.ts'

export type { FailoverBody, RunBody } from './agent/api.ts'
export { AgentClient } from './agent/client.ts'
export type { GuestDensity, HostDensityStatus } from './agent/density-status.ts'
export type { HostEvent } from './agent/event-log.ts'
export type { GuestStatus, HostStatus } from './agent/status.ts'
export { type ErrorCode, SubpageError } from './errors.ts'
export type { DensitySettings } from './qemu/guest-record.ts'
export type { ProtectBody } from './replication/protection-settings.ts'

export interface ConnectOptions {
  /** The socket of an agent of this machine. */
  socket?: string
  /** Or its state directory; without either, that of this user's agent. */
  state?: string
  /** Or its API over TCP: https://HOST:PORT, or http:// on loopback. */
  url?: string
  /** The token of the API over TCP. */
  token?: string
  /** The CA of its certificate, in PEM form; without it the system's CAs are trusted. */
  ca?: string | Buffer
}

/**
 * Opens nothing yet: each call is a request of its own, and fails with a SubpageError whose `code` is one of docs/errors.md,
 * AGENT_UNREACHABLE when nobody answers.
 */
export function connect({ socket, state, url, token, ca }: ConnectOptions = {}): AgentClient {
  if (url === undefined) return new AgentClient(socket ?? apiSocket(state ?? defaultStateDirectory()))
  const endpoint: ApiEndpoint = { url: new URL(url), token: token ?? '' }
  return new AgentClient(ca === undefined ? endpoint : { ...endpoint, ca: Buffer.from(ca) })
}
