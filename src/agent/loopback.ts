/** Addresses that never leave this machine. */
import { lookup } from 'node:dns/promises'
import { BlockList, isIPv6 } from 'node:net'
import { SubpageError } from '../errors.ts'

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

export function isLoopback(ip: string): boolean {
  return loopback.check(ip, isIPv6(ip) ? 'ipv6' : 'ipv4')
}

/**
 * The loopback address that a host name stands for; undefined when it stands for another one too.
 * @throws SubpageError PEER_UNREACHABLE for a name that nobody knows
 */
export async function loopbackAddress(host: string): Promise<string | undefined> {
  const found = await lookup(host, { all: true }).catch((cause) => {
    throw new SubpageError('PEER_UNREACHABLE', `the name ${host} stands for no address (${cause.code})`, {
      cause,
    })
  })
  return found.every(({ address }) => isLoopback(address)) ? found[0]?.address : undefined
}
