/**
 * A network card of the guest: the bridge it is on, which has the same name on both hosts, and its address, which stays with
 * the guest for ever. Behind it is a tap that QEMU makes and the kernel removes with QEMU's process (tap.ts).
 */
import { createHash } from 'node:crypto'
import { type Static, Type } from '#typebox'
import { SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { parseOption } from './option-syntax.ts'
import type { Machine } from './options.ts'
import { stateTag } from './state-path.ts'

/** Linux interface names are up to 15 bytes. */
const bridgePattern = '^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$'
/** Unicast: the first octet is even. */
const macPattern = '^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$'
export const Nic = Type.Object(
  { bridge: Type.String({ pattern: bridgePattern }), mac: Type.String({ pattern: macPattern }) },
  { additionalProperties: false },
)
export type Nic = Static<typeof Nic>

/** As `run` gets it: without an address there is one by default. */
export const NicRequest = Type.Object(
  { bridge: Nic.properties.bridge, mac: Type.Optional(Nic.properties.mac) },
  { additionalProperties: false },
)
export type NicRequest = Static<typeof NicRequest>

/** Reads any number of `bridge=NAME[,mac=ADDRESS]`, separated by commas. @throws SubpageError BAD_ARGUMENT */
export function parseNics(text: string): NicRequest[] {
  return text === '' ? [] : text.split(/,(?=bridge=)/).map(parseNic)
}

function parseNic(text: string): NicRequest {
  const parts = parseOption(text)
  const value = (key: string) => parts.find((part) => part.key === key)?.value
  const bridge = value('bridge')
  const mac = value('mac')?.toLowerCase()
  const known = parts.every(({ key }) => key === 'bridge' || key === 'mac')
  if (!known || bridge === undefined || !new RegExp(bridgePattern).test(bridge))
    throw new SubpageError('BAD_ARGUMENT', `--net ${text}: write bridge=NAME or bridge=NAME,mac=ADDRESS`)
  if (mac === undefined) return { bridge }
  if (!new RegExp(macPattern).test(mac))
    throw new SubpageError('BAD_ARGUMENT', `--net ${text}: ${mac} is not the address of one network card`)
  return { bridge, mac }
}

/** Gives each card its address: the one that was asked for, or one that follows from the guest's name. */
export function addressed(guest: string, requests: NicRequest[]): Nic[] {
  if (requests.length > limits.networkCards.value)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `a guest has at most ${limits.networkCards.value} network cards by --net`,
    )
  return requests.map(({ bridge, mac }, index) => ({ bridge, mac: mac ?? defaultMac(guest, index) }))
}

/** Locally administered (second bit of the first octet), 40 bits from the name. */
function defaultMac(guest: string, index: number): string {
  const digest = createHash('sha256').update(`${guest}\0${index}`).digest()
  return ['02', ...[...digest.subarray(0, 5)].map((byte) => byte.toString(16).padStart(2, '0'))].join(':')
}

/** The tap's name on this host. @param directory of the guest's files, of which there is one on a host */
export function tapName(directory: string, index: number): string {
  return `sp${stateTag(directory, 10)}-${index}`
}

/** QEMU's options for the cards, the same on both hosts but for the names of the taps. */
export function nicOptions(nics: Nic[], directory: string): string[] {
  return nics.flatMap(({ mac }, index) => [
    '-netdev',
    `tap,id=${nicNetdev(index)},ifname=${tapName(directory, index)},script=no,downscript=no,vhost=off`,
    '-device',
    // Without romfile= a boot ROM would be guest memory that is not in the RAM file. The modern form of virtio has registers
    // for 1,024 queues, which QEMU writes into each checkpoint's device state: 45 KiB, and 0.7 ms of every pause.
    `virtio-net-pci,netdev=${nicNetdev(index)},mac=${mac},romfile=,disable-legacy=off,disable-modern=on`,
  ])
}

const nicNetdev = (index: number) => `subpage-net${index}`

/** Ids of all network backends of a machine: ours, and those among the user's options. */
export function netdevIds({
  nics,
  options,
  managed,
}: Pick<Machine, 'nics' | 'options' | 'managed'>): string[] {
  const given = options
    .filter((_, index) => options[index - 1] === '-netdev')
    .map((value) => parseOption(value).find(({ key }) => key === 'id')?.value)
  return [
    ...nics.map((_, index) => nicNetdev(index)),
    ...given.filter((id) => id !== undefined),
    ...(managed?.netdevs ?? []),
  ]
}
