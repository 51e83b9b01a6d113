/**
 * UEFI firmware with variables that last (NVRAM). Which builds a host has, its packages say in QEMU's own descriptors
 * (docs/interop/firmware.json of QEMU). Code and variables are flash chips: QEMU holds both in memory, which lies in the RAM file
 * (aux-ram.ts), so a standby has them as it has RAM; and a QEMU that has loaded a device state writes its variables to its own file
 * before the guest runs (hw/block/pflash_cfi01.c). So that file needs no mirror.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { type Static, Type } from '#typebox'
import { Value } from '#typebox/value'
import { SubpageError } from '../errors.ts'
import { doubleCommas, splitAtCommas } from './option-syntax.ts'

/** `uefi`: as most guests have it. `secure-boot`: runs only what is signed by a key that it knows; needs q35. */
const firmwareKinds = ['uefi', 'secure-boot'] as const
export const FirmwareKind = Type.Enum([...firmwareKinds])
export type FirmwareKind = Static<typeof FirmwareKind>

export const FirmwareRequest = Type.Object(
  {
    kind: FirmwareKind,
    /** A file with variables that is there; without one a new one is made. */
    nvram: Type.Optional(Type.String({ maxLength: 4096 })),
  },
  { additionalProperties: false },
)
export type FirmwareRequest = Static<typeof FirmwareRequest>

/** @param given KIND[,nvram=PATH] @throws SubpageError BAD_ARGUMENT */
export function parseFirmware(given: string): FirmwareRequest {
  const [kind, ...words] = splitAtCommas(given)
  const nvram = words.length === 1 ? /^nvram=(.+)$/.exec(words[0]!)?.[1] : undefined
  const known = firmwareKinds.find((one) => one === kind)
  if (known === undefined || words.length > (nvram === undefined ? 0 : 1))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `"${given}" is no firmware: write ${firmwareKinds.join(' or ')}, and after it ,nvram=PATH for variables that are there`,
    )
  return { kind: known, ...(nvram !== undefined && { nvram: resolve(nvram) }) }
}

/** Of this host. */
export const Firmware = Type.Object(
  {
    kind: FirmwareKind,
    /** What is executed; never written. */
    code: Type.String(),
    /** The file with the variables. */
    nvram: Type.String(),
    /** By subpage, in its own directory of disks. */
    made: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
)
export type Firmware = Static<typeof Firmware>

/** A build of a package. */
export interface FirmwareBuild {
  code: string
  /** What the variables are at first. */
  template: string
}

const RawFile = Type.Object({ filename: Type.String({ pattern: '^/' }), format: Type.Literal('raw') })

/** Of QEMU's form what matters here; others, such as builds for other machines, do not match it. */
const Descriptor = Type.Object({
  'interface-types': Type.Array(Type.String()),
  mapping: Type.Object({
    device: Type.Literal('flash'),
    mode: Type.Optional(Type.Literal('split')),
    executable: RawFile,
    'nvram-template': RawFile,
  }),
  targets: Type.Array(Type.Object({ architecture: Type.String(), machines: Type.Array(Type.String()) })),
  features: Type.Array(Type.String()),
})
type Descriptor = Static<typeof Descriptor>

/** The administrator's come before those of packages; one of the same name takes the other's place. */
const descriptorDirectories = ['/etc/qemu/firmware', '/usr/share/qemu/firmware']

/** @throws SubpageError FIRMWARE_MISSING when no package of this host has it */
export function findFirmware(kind: FirmwareKind, directories = descriptorDirectories): FirmwareBuild {
  const wanted = kind === 'secure-boot'
  for (const { mapping, features } of descriptors(directories)) {
    // Keys that are known make it secure; a build that could be, and knows none, is neither.
    const secure = features.includes('secure-boot') && features.includes('enrolled-keys')
    if (wanted ? !secure : features.includes('secure-boot') || features.includes('requires-smm')) continue
    const [code, template] = [mapping.executable.filename, mapping['nvram-template'].filename]
    if (existsSync(code) && existsSync(template)) return { code, template }
  }
  throw new SubpageError(
    'FIRMWARE_MISSING',
    `this host has no ${kind} firmware: install the package ovmf (Debian, Ubuntu) or edk2-ovmf; ${directories.join(' and ')} describe what there is`,
  )
}

/** Which build this code belongs to; undefined: to none. */
export function firmwareOf(code: string, directories = descriptorDirectories): FirmwareKind | undefined {
  return firmwareKinds.find((kind) => {
    try {
      return sameFile(findFirmware(kind, directories).code, code)
    } catch {
      // The host has no firmware of this kind.
      return false
    }
  })
}

function sameFile(one: string, other: string): boolean {
  const [a, b] = [one, other].map((path) => statSync(path, { throwIfNoEntry: false }))
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino
}

function descriptors(directories: readonly string[]): Descriptor[] {
  const files = new Map<string, string>()
  for (const directory of directories.filter((path) => existsSync(path)))
    for (const leaf of readdirSync(directory))
      if (leaf.endsWith('.json') && !files.has(leaf)) files.set(leaf, join(directory, leaf))
  return [...files.keys()].sort().flatMap((leaf) => {
    const read = parse(files.get(leaf)!)
    const fits =
      Value.Check(Descriptor, read) &&
      read['interface-types'].includes('uefi') &&
      read.targets.some(({ architecture }) => architecture === 'x86_64')
    return fits ? [read] : []
  })
}

function parse(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    // An empty file takes a package's descriptor out of use; another that cannot be read describes nothing.
    return undefined
  }
}

/** Names of the flash chips' contents in QEMU. */
const codeNode = 'subpage-firmware'
const nvramNode = 'subpage-nvram'

/** What is said after the machine's type. */
export const firmwareOfMachine = (firmware: Firmware | undefined): string =>
  firmware
    ? `,pflash0=${codeNode},pflash1=${nvramNode}${firmware.kind === 'secure-boot' ? ',smm=on' : ''}`
    : ''

export function firmwareOptions(firmware: Firmware | undefined): string[] {
  if (!firmware) return []
  const node = (name: string, path: string, readOnly: 'on' | 'off') =>
    `driver=raw,node-name=${name},read-only=${readOnly},file.driver=file,file.filename=${doubleCommas(path)}`
  return [
    ...['-blockdev', node(codeNode, firmware.code, 'on')],
    ...['-blockdev', node(nvramNode, firmware.nvram, 'off')],
    // Variables can be written by the firmware alone, which checks them.
    ...(firmware.kind === 'secure-boot' ? ['-global', 'driver=cfi.pflash01,property=secure,value=on'] : []),
  ]
}

const withoutFlash = /^(microvm|isapc)\b/

/** @throws SubpageError GUEST_UNPROTECTABLE */
export function assertFits(kind: FirmwareKind, type: string, options: readonly string[]): void {
  const refuse = (why: string): never => {
    throw new SubpageError('GUEST_UNPROTECTABLE', `cannot have ${kind} firmware: ${why}`)
  }
  if (withoutFlash.test(type)) refuse(`the machine ${type} has no flash for it; take q35 or pc`)
  if (kind === 'secure-boot' && !/^(q35|pc-q35-|ubuntu-q35)/.test(type))
    refuse(`it needs a q35 machine, this one is ${type}`)
  if (/\bsmm=off\b/.test(type)) refuse('it needs system management mode, which smm=off takes away')
  if (options.includes('-bios')) refuse('-bios is another firmware: give one of them')
}
