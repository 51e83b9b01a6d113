/**
 * Where an agent is reached. From other hosts: host:port, as given to --listen and --to; IPv6 hosts stand in brackets. From the
 * machine itself: the path of its state directory, or of the socket in it.
 */
import { basename, dirname } from 'node:path'
import { SubpageError } from '../errors.ts'
import { socketPath } from '../qemu/state-path.ts'

export interface TcpAddress {
  host: string
  port: number
}

export interface SocketAddress {
  path: string
}

export type Address = TcpAddress | SocketAddress

/** The port that agents listen on for replication unless told otherwise. */
const defaultPort = 7475

/** In its state directory: where an agent of the same machine is reached. */
export const pairSocket = (stateDirectory: string) => socketPath(stateDirectory, 'pair.sock')

/** The state directory, of which the socket in it may have been given. */
export const directoryOf = (path: string) => (basename(path) === 'pair.sock' ? dirname(path) : path)

/** Both ends ask an idle peer after 5 s, and give it up 10 s later. */
export const keepAlive = { keepAlive: true, keepAliveInitialDelay: 5_000 }

/** @throws SubpageError BAD_ARGUMENT */
export function parseAddress(text: string): Address {
  return text.startsWith('/')
    ? { path: text }
    : parseTcpAddress(text, ', or the state directory of an agent on this machine, beginning with / or ./')
}

/** @param others what else could have been written @throws SubpageError BAD_ARGUMENT */
export function parseTcpAddress(text: string, others = ''): TcpAddress {
  const match = /^(?:\[([^\]]+)\]|([^:\s]+))(?::(\d{1,5}))?$/.exec(text)
  const port = match?.[3] === undefined ? defaultPort : Number(match[3])
  const host = match?.[1] ?? match?.[2]
  if (host === undefined || host.includes('/') || port > 65535)
    throw new SubpageError('BAD_ARGUMENT', `"${text}" is not an address: write HOST or HOST:PORT${others}`)
  return { host, port }
}

export function formatAddress(address: Address): string {
  if ('path' in address) return address.path
  const { host, port } = address
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}
