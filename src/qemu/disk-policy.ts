/**
 * Disks and network connections of a protected guest (-drive, -blockdev, -netdev): read-only files from the image
 * directories, and taps that exist or are made on either host. Nothing that connects, executes or writes. Writable disks are taken
 * out before (option-disks.ts).
 */
import { idRefusal } from './device-policy.ts'
import { imageRefusal } from './image-files.ts'
import { type OptionPart, parseOption } from './option-syntax.ts'

/** What a value must be, and what a property is for when it may not be had at all. */
type Properties = Record<string, RegExp | 'file' | 'id'>

const number = /^\d+$/
const onOff = /^(on|off)$/
const word = /^[\w-]+$/

/** `run` has taken those out that can be protected (option-disks.ts); what is left is the other host's word. */
const writableRefusal = 'a writable disk is not among the options that another host gives'

const driveProperties: Properties = {
  file: 'file',
  id: 'id',
  readonly: /^on$/,
  'read-only': /^on$/,
  format: /^(raw|qcow2)$/,
  if: /^(none|virtio|ide|scsi)$/,
  media: /^(disk|cdrom)$/,
  index: number,
  bus: number,
  unit: number,
  cache: word,
  aio: /^(threads|native|io_uring)$/,
  discard: word,
  'detect-zeroes': onOff,
  werror: word,
  rerror: word,
}

const blockdevProperties: Properties = {
  driver: /^(file|raw|qcow2)$/,
  'node-name': 'id',
  'read-only': /^on$/,
  'auto-read-only': onOff,
  filename: 'file',
  // The name of another node, which has passed this same check.
  file: /^[A-Za-z][\w.-]*$/,
  'file.driver': /^file$/,
  'file.filename': 'file',
  'file.node-name': 'id',
  'file.read-only': onOff,
  'file.auto-read-only': onOff,
  'cache.direct': onOff,
  'cache.no-flush': onOff,
  aio: /^(threads|native|io_uring)$/,
  discard: word,
  'detect-zeroes': onOff,
}

const tapProperties: Properties = {
  type: /^tap$/,
  id: 'id',
  // Not one of subpage's own (nic.ts).
  ifname: /^(?!sp[0-9a-f]{10}-)[A-Za-z][\w.-]{0,14}$/,
  script: /^no$/,
  downscript: /^no$/,
  vhost: /^off$/,
  sndbuf: number,
}

const netdevReasons: [pattern: RegExp, reason: string][] = [
  [
    /^user\b/,
    "user-mode networking ends the guest's TCP connections inside the QEMU process, so they die with it; use a tap",
  ],
  [
    /vhost=(on|true|force)|^vhost-/,
    'vhost moves packets past the buffers that hold output back until it is safe; leave vhost off',
  ],
  [/^bridge\b|\bhelper=/, 'it runs a program on the host; use tap,ifname=NAME,script=no,downscript=no'],
  [/^(socket|stream|dgram|l2tpv3|vde|passt)\b/, 'it opens a connection of its own on the host; use a tap'],
  [/\bfds?=|\bvhostfds?=/, 'the other host would not have the descriptor'],
]

export const driveIsWritable = (parts: OptionPart[]): boolean =>
  !parts.some(
    ({ key, value }) =>
      ((key === 'readonly' || key === 'read-only') && value === 'on') ||
      (key === 'media' && value === 'cdrom'),
  )

export const blockdevIsWritable = (parts: OptionPart[]): boolean =>
  !parts.some(({ key, value }) => key === 'read-only' && value === 'on')

export function driveRefusal(value: string, images: readonly string[]): string | undefined {
  const parts = parseOption(value)
  if (driveIsWritable(parts)) return writableRefusal
  if (!parts.some(({ key }) => (key ?? 'file') === 'file')) return 'it names no file'
  return propertiesRefusal(parts, driveProperties, 'file', images)
}

export function blockdevRefusal(value: string, images: readonly string[]): string | undefined {
  if (value.startsWith('{')) return 'write it as key=value,…'
  const parts = parseOption(value)
  if (blockdevIsWritable(parts)) return writableRefusal
  return propertiesRefusal(parts, blockdevProperties, 'driver', images)
}

export function netdevRefusal(value: string): string | undefined {
  if (value.startsWith('{')) return 'write it as TYPE,key=value,…'
  const known = netdevReasons.find(([pattern]) => pattern.test(value))
  if (known) return known[1]
  const parts = parseOption(value)
  const [first] = parts
  if ((first?.key ?? 'type') !== 'type' || first?.value !== 'tap')
    return 'only tap can be taken over by another host'
  for (const script of ['script', 'downscript'])
    if (!parts.some(({ key }) => key === script))
      return `QEMU would run a program of the host; add ${script}=no`
  return propertiesRefusal(parts, tapProperties, 'type', [])
}

/** @param implied the key of a first word that stands alone */
export function propertiesRefusal(
  parts: OptionPart[],
  properties: Properties,
  implied: string,
  images: readonly string[],
): string | undefined {
  for (const { key = implied, value } of parts) {
    const form = Object.hasOwn(properties, key) ? properties[key] : undefined
    if (form === undefined) return `${key}= is not on the list of what another host can take over safely`
    if (form === 'file') {
      const reason = imageRefusal(value, images)
      if (reason !== undefined) return reason
    } else if (form === 'id') {
      const reason = idRefusal(value)
      if (reason !== undefined) return reason
    } else if (!form.test(value)) return `${key}=${value} is not possible here`
  }
  return undefined
}
