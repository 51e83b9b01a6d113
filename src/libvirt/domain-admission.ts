/**
 * The description of a domain that is to be protected, as both hosts take it. On the standby it is the word of another host, which must
 * reach nothing there: no path that is not on the lists, no program, no variable of the environment, no screen for everybody.
 */
import type { Document, Element } from '@xmldom/xmldom'
import { imageRefusal } from '../qemu/image-files.ts'
import { type Refusal, refuseUnprotectable } from './domain-policy.ts'
import { attribute, childrenOf, find, rootOf } from './domain-xml.ts'

const known = new Set([
  ...['name', 'uuid', 'title', 'description', 'metadata', 'vcpu'],
  ...['memory', 'maxMemory', 'currentMemory', 'memoryBacking'],
  ...[
    'vcpus',
    'cpu',
    'cputune',
    'iothreads',
    'os',
    'features',
    'clock',
    'on_poweroff',
    'on_reboot',
    'on_crash',
  ],
  ...['pm', 'sysinfo', 'devices', 'qemu:commandline'],
])

/** Libvirt only keeps these: they reach no QEMU. */
const notes = new Set(['title', 'description', 'metadata'])

/** @param document without what `prepare` adds @throws SubpageError GUEST_UNPROTECTABLE with all reasons */
export function assertAdmissible(document: Document, host: AdmittingHost): void {
  refuseUnprotectable(document, admissionRefusals(document, host))
}

export interface AdmittingHost {
  /** Directories that guests of this host may read from; undefined: another program knows them. */
  images: readonly string[] | undefined
  /** This host's QEMU, as libvirt has it. */
  emulator: string
}

/** What speaks against a description, beside what it is itself (domain-policy.ts). */
export function admissionRefusals(document: Document, host: AdmittingHost): Refusal[] {
  const root = rootOf(document)
  const refusals: Refusal[] = []
  const refuse = (part: string, reason: string) => refusals.push({ part, reason })
  for (const { nodeName } of childrenOf(root))
    if (!known.has(nodeName)) refuse(nodeName, 'it is not on the list of what another host takes')
  if (find(root, 'qemu:commandline/qemu:env'))
    refuse('qemu:env', 'a variable of the environment can load code into QEMU')
  for (const graphics of childrenOf(find(root, 'devices'), 'graphics'))
    if (!isGuarded(graphics)) refuse('graphics', 'a screen that a network sees needs a password')
  const told = childrenOf(root).filter(({ nodeName }) => !notes.has(nodeName))
  for (const element of told.flatMap(everyElement)) refusals.push(...pathRefusals(element, host))
  return refusals
}

function isGuarded(graphics: Element): boolean {
  if (attribute(graphics, 'passwd') !== undefined) return true
  const addresses = [graphics, ...childrenOf(graphics, 'listen')].flatMap((element) =>
    ['listen', 'address', 'network'].map((key) => attribute(element, key) ?? ''),
  )
  return addresses.every((address) => /^(127\..*|::1|)$/.test(address))
}

function everyElement(element: Element): Element[] {
  return [element, ...childrenOf(element).flatMap(everyElement)]
}

/** Sources of random numbers. */
const harmless = /^\/dev\/u?random$/

/** What begins with a slash is a path of the host. */
function pathRefusals(element: Element, { images, emulator }: AdmittingHost): Refusal[] {
  const part = element.nodeName
  if (part === 'script' || part === 'downscript')
    return [{ part, reason: 'libvirt would run a program of the host' }]
  // What subpage's rules for options say of these counts.
  if (part === 'qemu:arg') return []
  const text = childrenOf(element).length === 0 ? (element.textContent ?? '').trim() : ''
  const paths = [text, ...[...element.attributes].map(({ value }) => value)].filter((value) =>
    value.startsWith('/'),
  )
  return paths.flatMap((path) => {
    if (harmless.test(path) || (part === 'emulator' && path === emulator)) return []
    const isRead = part === 'kernel' || part === 'initrd' || (part === 'source' && isReadOnlyDisk(element))
    if (part === 'emulator') return [{ part, reason: `${path} is not the QEMU of this host, ${emulator}` }]
    if (isRead && !images) return []
    const reason = isRead && images ? imageRefusal(path, images) : `${path}: it names a path of the host`
    return reason === undefined ? [] : [{ part, reason }]
  })
}

function isReadOnlyDisk(source: Element): boolean {
  const disk = source.parentNode as Element | null
  return disk?.nodeName === 'disk' && find(disk, 'readonly') !== undefined
}
