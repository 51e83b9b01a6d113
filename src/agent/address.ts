/** Addresses of the form host:port, as given to --listen and --to. IPv6 hosts stand in brackets. */
import { SubpageError } from '../errors.ts'

export interface Address {
  host: string
  port: number
}

/** The port that agents listen on for replication unless told otherwise. */
export const defaultPort = 7475

/** Both ends ask an idle peer after 5 s, and give it up 10 s later. */
export const keepAlive = { keepAlive: true, keepAliveInitialDelay: 5_000 }

/** @throws SubpageError BAD_ARGUMENT */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:\s]+))(?::(\d{1,5}))?$/.exec(text)
  const port = match?.[3] === undefined ? defaultPort : Number(match[3])
  const host = match?.[1] ?? match?.[2]
  if (host === undefined || port > 65535)
    throw new SubpageError('BAD_ARGUMENT', `"${text}" is not an address: write HOST or HOST:PORT`)
  return { host, port }
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}
