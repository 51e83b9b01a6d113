/** Reads -drive and -blockdev of disks that the guest writes to. What is not here cannot be protected. */
import type { DiskRequest } from './disk.ts'
import { type GivenOption, refuse } from './option-policy.ts'
import type { OptionPart } from './option-syntax.ts'

export interface WrittenDisk {
  /** The options that it is made of. */
  from: GivenOption[]
  /** They, for people. */
  name: string
  /** By which a -device has it. */
  id: string | undefined
  path: string
  shape: Pick<DiskRequest, 'format' | 'cache' | 'discard' | 'aio'> & Pick<DiskRequest, 'werror' | 'rerror'>
  /** A device of our own has it, of this bus; undefined: a device of the options, or one that -drive makes. */
  bus: 'virtio' | undefined
  /** That -drive makes. */
  ide: boolean
  /** Where, as -drive counts. */
  index: number | undefined
  /** For the device. */
  errors: { werror?: string; rerror?: string }
}

interface Parsed {
  option: GivenOption
  parts: OptionPart[]
}

const network =
  'its storage is on the network, and both hosts would share it: it holds what the guest has written since its last checkpoint already, so no other host can go on with it; give a file or device of this host, and each host has a copy of its own'

const drivers: [pattern: RegExp, reason: string][] = [
  [/^(nbd|rbd|iscsi|iser|ssh|https?|ftps?|nfs|gluster|sheepdog|vxhs|dav)/, network],
  [
    /^(virtio-blk-v|nvme|vhost)/,
    'it writes guest RAM from outside of QEMU, where no write to it can be tracked',
  ],
  [/^(v?fat|floppy|null-)/, 'it keeps nothing that could be copied'],
  [/^json$/, 'write it as key=value,…'],
  [
    /^(vmdk|vdi|vhdx|vpc|qed|qcow|parallels|dmg|bochs|cloop|luks)$/,
    'disks of a protected guest are raw or qcow2: qemu-img convert makes one of it',
  ],
  [/./, 'disks of a protected guest are files and devices of its host, raw or qcow2'],
]

const driverRefusal = (driver: string) => drivers.find(([pattern]) => pattern.test(driver))![1]

/** Why a -drive cannot have this file; undefined when it can. */
export function fileRefusal(path: string): string | undefined {
  const protocol = /^([a-z][a-z0-9+.-]*):/i.exec(path)?.[1]
  if (protocol !== undefined) return driverRefusal(protocol.toLowerCase())
  return path.startsWith('/') ? undefined : 'give the whole path of the file, beginning with /'
}

/** Values that a key may have, and what is made of them. `taken`: it is looked at elsewhere. */
type Rule = RegExp | 'taken' | { reason: string }

const onOff = /^(on|off)$/
const unlocked = {
  reason:
    'with its locks off nobody could tell that somebody else has the disk, as where both hosts share it; leave locking alone',
}
const unsafe = {
  reason:
    "it forgets the guest's flushes, so that a loss of power costs what the guest was told is safe; give cache=writeback",
}

const driveRules: Record<string, Rule> = {
  file: 'taken',
  id: /^[A-Za-z][\w.-]{0,62}$/,
  if: /^(none|virtio|ide)$/,
  format: /^(raw|qcow2)$/,
  media: /^disk$/,
  index: /^\d{1,2}$/,
  bus: /^\d$/,
  unit: /^\d$/,
  readonly: /^off$/,
  'read-only': /^off$/,
  'auto-read-only': onOff,
  snapshot: /^off$/,
  cache: /^(writeback|none|writethrough|directsync)$/,
  aio: /^(threads|native|io_uring)$/,
  discard: /^(unmap|on|ignore|off)$/,
  'detect-zeroes': /^off$/,
  werror: /^(report|enospc|stop)$/,
  rerror: /^(report|stop)$/,
}

const driveReasons: [pattern: RegExp, reason: string][] = [
  [
    /^snapshot=/,
    'its writes would go to a temporary file of this host and be lost with it; leave snapshot out, or make an overlay with qemu-img and give that',
  ],
  [/^cache=unsafe$/, unsafe.reason],
  [/^if=scsi$/, 'give it with --disk …,bus=scsi, or with if=none and a -device scsi-hd'],
  [/locking=/, unlocked.reason],
  [/^([wr]error)=ignore$/, 'what is lost would not be noticed'],
]

export function readDrive(option: GivenOption, parts: OptionPart[]): WrittenDisk {
  const name = `${option.flag} ${option.value}`
  const driver = parts.find(({ key }) => key === 'driver' || key === 'file.driver')?.value
  if (driver !== undefined && !/^(raw|qcow2|file)$/.test(driver)) refuse(name, driverRefusal(driver))
  const values = read(name, parts, 'file', driveRules, driveReasons)
  const { file, id, cache, aio, discard, format, werror, rerror } = values
  if (file === undefined) return refuse(name, 'it names no file')
  const reason = fileRefusal(file)
  if (reason !== undefined) refuse(name, reason)
  const bus = values.if === 'virtio' ? 'virtio' : undefined
  const errors = { ...(werror && { werror }), ...(rerror && { rerror }) }
  const shape = {
    ...(format && { format }),
    ...(cache && cache !== 'writeback' && { cache }),
    ...(aio && { aio }),
    ...(discard && { discard: unmaps(discard) }),
    ...(bus && errors),
  } as WrittenDisk['shape']
  const ide = (values.if ?? 'ide') === 'ide'
  const index = values.index === undefined ? undefined : Number(values.index)
  if (ide && (values.bus !== undefined || values.unit !== undefined))
    refuse(name, 'say where it is with index=')
  return { from: [option], name, id, path: file, shape, bus, ide, index, errors }
}

const nodeRules: Record<string, Rule> = {
  driver: 'taken',
  'node-name': /^[A-Za-z][\w.-]{0,30}$/,
  'read-only': /^off$/,
  'auto-read-only': onOff,
  discard: /^(unmap|ignore)$/,
  'detect-zeroes': /^off$/,
  'cache.direct': onOff,
  'cache.no-flush': /^off$/,
}
const fileRules: Record<string, Rule> = {
  ...nodeRules,
  filename: 'taken',
  aio: /^(threads|native|io_uring)$/,
  locking: /^(auto|on)$/,
}
const formatRules: Record<string, Rule> = {
  ...nodeRules,
  file: 'taken',
  ...Object.fromEntries(Object.entries(fileRules).map(([key, rule]) => [`file.${key}`, rule])),
}

const nodeReasons: [pattern: RegExp, reason: string][] = [
  [/locking=/, unlocked.reason],
  [/^(file\.)?cache\.no-flush=/, unsafe.reason],
]

/** Nodes become disks: a raw or qcow2 node with its file, and a file that stands alone. */
export function readBlockdev(nodes: Parsed[]): WrittenDisk[] {
  const files = new Map<string, { option: GivenOption; values: Values; used: boolean }>()
  const disks: WrittenDisk[] = []
  for (const { option, parts } of nodes) {
    const name = `${option.flag} ${option.value}`
    const driver = parts.find(({ key }, at) => key === 'driver' || (at === 0 && key === undefined))?.value
    if (driver === 'file' || driver === 'host_device') {
      const values = read(name, parts, 'driver', fileRules, nodeReasons)
      files.set(values['node-name'] ?? name, { option, values, used: false })
      continue
    }
    if (driver !== 'raw' && driver !== 'qcow2') refuse(name, driverRefusal(driver ?? ''))
    const values = read(name, parts, 'driver', formatRules, nodeReasons)
    const inline = values['file.driver']
    if (inline !== undefined && inline !== 'file' && inline !== 'host_device')
      refuse(name, driverRefusal(inline))
    const below = values.file === undefined ? undefined : files.get(values.file)
    if (values.file !== undefined && !below)
      refuse(name, `no -blockdev of a file that can be written has the name ${values.file} before it`)
    if (below?.used) refuse(name, `two disks have the file ${values.file}`)
    if (below) below.used = true
    const of = below ? below.values : within(values)
    disks.push(diskOf(below ? [below.option, option] : [option], name, values, of, driver as 'raw' | 'qcow2'))
  }
  for (const { option, values, used } of files.values())
    if (!used) disks.push(diskOf([option], `${option.flag} ${option.value}`, values, values, 'raw'))
  return disks
}

type Values = Partial<Record<string, string>>

/** Of `file.…`. */
const within = (values: Values): Values =>
  Object.fromEntries(
    Object.entries(values).flatMap(([key, value]) =>
      key.startsWith('file.') ? [[key.slice(5), value]] : [],
    ),
  )

function diskOf(
  from: GivenOption[],
  name: string,
  top: Values,
  file: Values,
  format: 'raw' | 'qcow2',
): WrittenDisk {
  const path = file.filename
  if (path === undefined) return refuse(name, 'it names no file')
  const reason = fileRefusal(path)
  if (reason !== undefined) refuse(name, reason)
  const direct = top['cache.direct'] === 'on' || file['cache.direct'] === 'on'
  const { aio } = file
  const shape = {
    format,
    ...(direct && { cache: 'none' }),
    ...(aio && { aio }),
    ...(top.discard && { discard: unmaps(top.discard) }),
  } as WrittenDisk['shape']
  const id = top['node-name']
  return { from, name, id, path, shape, bus: undefined, ide: false, index: undefined, errors: {} }
}

const unmaps = (discard: string) => discard === 'unmap' || discard === 'on'

function read(
  name: string,
  parts: OptionPart[],
  implied: string,
  rules: Record<string, Rule>,
  reasons: [pattern: RegExp, reason: string][],
): Values {
  const values: Values = {}
  for (const { key = implied, value } of parts) {
    const rule = Object.hasOwn(rules, key) ? rules[key] : undefined
    if (key in values) refuse(name, `it says ${key}= twice`)
    const fits = rule === 'taken' || (rule instanceof RegExp && rule.test(value))
    if (!fits) {
      const known = reasons.find(([pattern]) => pattern.test(`${key}=${value}`))
      if (known) refuse(name, known[1])
      if (rule === undefined) refuse(name, `${key}= is not on the list of what another host can take over`)
      refuse(name, `${key}=${value} is not possible here`)
    }
    values[key] = value
  }
  return values
}
