/**
 * Puts the taps of a guest on their bridges, with ip(8). QEMU makes the taps and the kernel removes them with its process,
 * however that ends, so there is nothing to clean up. A bridge that does not exist is made, and stays.
 *
 * While a standby waits, its port of the bridge lets no broadcast and nothing of unknown destination in: the packets
 * would wait in the tap and reach the guest at the takeover, hours old. The port forwards all the same, so that a bridge
 * with spanning tree does not have to listen first when the guest comes.
 */
import { execFile } from 'node:child_process'
import { errorCode, SubpageError } from '../errors.ts'
import { type Nic, tapName } from './nic.ts'

interface Link {
  ifname: string
  mtu: number
  linkinfo?: { info_kind?: string }
}

/**
 * Makes the bridges that are missing. Returns the names of those it made.
 * @throws SubpageError NETWORK_FAILED
 */
export async function prepareBridges(nics: Nic[]): Promise<string[]> {
  const made: string[] = []
  for (const name of new Set(nics.map(({ bridge }) => bridge))) {
    if (await findBridge(name)) continue
    try {
      await ip(['link', 'add', 'name', name, 'type', 'bridge'])
    } catch (error) {
      // Another guest's start may have been faster.
      if (await findBridge(name)) continue
      throw error
    }
    await ip(['link', 'set', 'dev', name, 'up'])
    made.push(name)
  }
  return made
}

/**
 * Puts the taps of a QEMU that has started on their bridges.
 * @param waiting of a standby: quiet until `openTaps`
 * @throws SubpageError NETWORK_FAILED
 */
export async function joinBridges(nics: Nic[], directory: string, waiting: boolean): Promise<void> {
  const lines: string[] = []
  for (const [index, { bridge, mac }] of nics.entries()) {
    const tap = tapName(directory, index)
    const found = await findBridge(bridge)
    if (!found) throw new SubpageError('NETWORK_FAILED', `the bridge ${bridge} is gone`)
    lines.push(
      `link set dev ${tap} address ${tapAddress(mac)} mtu ${found.mtu}`,
      `link set dev ${tap} master ${bridge}`,
      ...(waiting ? [flooding(tap, 'off')] : []),
      `link set dev ${tap} up`,
    )
  }
  await batch(lines)
}

/** Lets everything in that is on the bridge: the guest runs here now. @throws SubpageError NETWORK_FAILED */
export async function openTaps(nics: Nic[], directory: string): Promise<void> {
  await batch(nics.map((_, index) => flooding(tapName(directory, index), 'on')))
}

const flooding = (tap: string, how: 'on' | 'off') =>
  `link set dev ${tap} type bridge_slave flood ${how} mcast_flood ${how} bcast_flood ${how}`

/** A bridge takes the lowest address of its ports as its own: a high one keeps the bridge's as it is. */
function tapAddress(mac: string): string {
  return (mac.startsWith('fe') ? 'fa' : 'fe') + mac.slice(2)
}

async function findBridge(name: string): Promise<Link | undefined> {
  // All links, since ip fails in the same way for a link that is not there and for other reasons.
  const links = JSON.parse(await ip(['-json', '-details', 'link', 'show'])) as Partial<Link>[]
  const link = links.find(({ ifname }) => ifname === name) as Link | undefined
  if (link && link.linkinfo?.info_kind !== 'bridge')
    throw new SubpageError(
      'NETWORK_FAILED',
      `${name} is not a Linux bridge but ${link.linkinfo?.info_kind ?? 'a network card'}: put that into a bridge, and name the bridge`,
    )
  return link
}

async function batch(lines: string[]): Promise<void> {
  if (lines.length > 0) await ip(['-batch', '-'], `${lines.join('\n')}\n`)
}

function ip(args: string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile('ip', args, { maxBuffer: 64 * 2 ** 20 }, (error, stdout, stderr) => {
      if (!error) resolve(stdout)
      else reject(failure(errorCode(error), stderr.trim() || error.message, error))
    })
    // What an ip that ended early did not read does not matter: its exit status tells.
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(input)
  })
}

function failure(code: string | undefined, said: string, cause: unknown): SubpageError {
  if (code === 'ENOENT')
    return new SubpageError('NETWORK_FAILED', 'the command ip is not installed: apt-get install iproute2', {
      cause,
    })
  const why = /not permitted/i.test(said)
    ? `the agent may not set up networks (${said}): run it as root, or give it CAP_NET_ADMIN`
    : said.split('\n')[0]
  return new SubpageError('NETWORK_FAILED', `cannot put the guest on its bridge: ${why}`, { cause })
}
