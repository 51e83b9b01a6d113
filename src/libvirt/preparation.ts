/**
 * What a domain needs so that it can be protected: its RAM in a file of ours, control sockets beside libvirt's, the shim, cards
 * whose packets pass through QEMU, and a screen of VNC in place of SPICE. Libvirt keeps its own RAM object, which then nobody uses: the later -machine counts
 * (checked on QEMU 7.2). What was added is noted in the domain's metadata, so that exactly that is taken back.
 */
import { dirname } from 'node:path'
import type { Document, Element } from '@xmldom/xmldom'
import { SubpageError } from '../errors.ts'
import { doubleCommas } from '../qemu/option-syntax.ts'
import { shimEnvironment } from '../tracking/shim.ts'
import { backendsOf, wholeMib } from './domain-backends.ts'
import type { DomainFiles } from './domain-files.ts'
import { withoutSpice, withSpice } from './domain-spice.ts'
import {
  append,
  attribute,
  childrenOf,
  find,
  formatDomain,
  insertAfter,
  parseDomain,
  qemuNamespace,
  remove,
  removeIfEmpty,
  rootOf,
  textAt,
} from './domain-xml.ts'

const noteName = 'subpage:prepared'
const noteNamespace = 'urn:subpage:libvirt'
/** One element of a namespace is all that libvirt keeps. */
const markNamespace = 'urn:subpage:libvirt:standby'
const withoutConfiguration = 'migration.send-configuration=off'
/** Ours after that word: four sockets. */
const wordsAfter = 8
const ramObject = 'memory-backend-file,id=subpage-ram,'

/** @returns the description with all that it needs, whatever of it was there before */
export function prepared(xml: string, files: DomainFiles): string {
  const document = parseDomain(unprepared(xml))
  const root = rootOf(document)
  const cards = withoutVhost(root)
  const spice = withoutSpice(root)
  root.setAttributeNS('http://www.w3.org/2000/xmlns/', 'xmlns:qemu', qemuNamespace)
  const commandline = find(root, 'qemu:commandline') ?? append(root, 'qemu:commandline', {}, qemuNamespace)
  const words = argumentsFor(root, files)
  const firstVariable = childrenOf(commandline, 'qemu:env')[0]
  for (const value of words) append(commandline, 'qemu:arg', { value }, qemuNamespace, firstVariable)
  const preload = childrenOf(commandline, 'qemu:env').find((env) => attribute(env, 'name') === 'LD_PRELOAD')
  const former = attribute(preload, 'value')
  for (const [name, value] of Object.entries(variablesFor(root, files)))
    if (name === 'LD_PRELOAD' && preload) preload.setAttribute('value', `${value}:${former}`)
    else append(commandline, 'qemu:env', { name, value }, qemuNamespace)
  note(root, {
    arguments: String(words.length),
    ...(former !== undefined && { preload: former }),
    ...(cards.length > 0 && { cards: cards.join(' ') }),
    ...(spice !== '' && { spice }),
  })
  return formatDomain(document)
}

/** @returns the description without what `prepared` has added; one that was not prepared as it is */
export function unprepared(xml: string): string {
  const document = parseDomain(xml)
  const root = rootOf(document)
  const noted = noteOf(root)
  if (!noted) return formatDomain(document)
  const commandline = find(root, 'qemu:commandline')
  const words = childrenOf(commandline, 'qemu:arg')
  const count = Number(attribute(noted, 'arguments'))
  const values = words.map((word) => attribute(word, 'value'))
  const last = values.findLastIndex(
    (value, at) => value === withoutConfiguration && values[at + 1] === '-qmp',
  )
  // Somebody may have taken them out by hand.
  if (last > 0)
    for (const word of words.slice(last + 1 + wordsAfter - count, last + 1 + wordsAfter)) remove(word)
  for (const env of childrenOf(commandline, 'qemu:env')) undoVariable(env, attribute(noted, 'preload'))
  removeIfEmpty(commandline)
  if (!childrenOf(root).some(({ nodeName }) => nodeName.startsWith('qemu:')))
    root.removeAttribute('xmlns:qemu')
  const cards = attribute(noted, 'cards')?.split(' ') ?? []
  for (const card of childrenOf(find(root, 'devices'), 'interface')) {
    const driver = find(card, 'driver')
    if (!driver || !cards.includes(macOf(card))) continue
    driver.removeAttribute('name')
    removeIfEmpty(driver)
  }
  const spice = attribute(noted, 'spice')
  if (spice !== undefined) withSpice(root, spice)
  remove(noted)
  removeIfEmpty(find(root, 'metadata'))
  return formatDomain(document)
}

export const isPrepared = (document: Document): boolean => noteOf(rootOf(document)) !== undefined

/** Libvirt writes attributes and spaces in its own way. */
export function isSame(one: string, other: string): boolean {
  return canonical(rootOf(parseDomain(one))) === canonical(rootOf(parseDomain(other)))
}

function canonical(element: Element): string {
  const attributes = [...element.attributes]
    .map(({ name, value }) => `${name}=${JSON.stringify(value)}`)
    .sort()
  const children = childrenOf(element)
  const content = children.length > 0 ? children.map(canonical).join('') : element.textContent
  return `<${element.nodeName} ${attributes.join(' ')}>${content?.trim()}</>`
}

function argumentsFor(root: Element, files: DomainFiles): string[] {
  const sockets = [files.qmp, files.qmpEvents, files.guardQmp, files.observerQmp]
  return [
    // Memory backends are taken by the shim as they are; QEMU does not have both.
    ...(backendsOf(root)
      ? ['-machine', 'suppress-vmdesc=on']
      : [
          '-object',
          `${ramObject}size=${ramBytes(root)},mem-path=${doubleCommas(files.ram)},share=on`,
          ...['-machine', 'memory-backend=subpage-ram,suppress-vmdesc=on'],
        ]),
    ...['-global', withoutConfiguration],
    ...sockets.flatMap((path) => ['-qmp', `unix:${doubleCommas(path)},server=on,wait=off`]),
  ]
}

function variablesFor(root: Element, { shim, ram, shimStatus, held, lease, guardQmp, forget }: DomainFiles) {
  const environment = shimEnvironment({
    ram,
    status: shimStatus,
    lease,
    guardQmp,
    forget,
    auxRam: true,
    backends: backendsOf(root) ?? [],
  })
  // Of the domain's, not of this command's environment.
  return { ...environment, LD_PRELOAD: shim, SUBPAGE_FRESH_RAM: String(ramBytes(root)), SUBPAGE_HELD: held }
}

function undoVariable(env: Element, preload: string | undefined): void {
  const name = attribute(env, 'name') ?? ''
  if (name === 'LD_PRELOAD' && preload !== undefined) env.setAttribute('value', preload)
  else if (name === 'LD_PRELOAD' || name.startsWith('SUBPAGE_')) remove(env)
}

/** As libvirt has it made: whole MiB. */
export function ramBytes(root: Element): number {
  const backends = backendsOf(root)
  if (backends) return backends.reduce((sum, bytes) => sum + bytes, 0)
  const unit = attribute(find(root, 'memory'), 'unit') ?? 'KiB'
  const size = Number(textAt(root, 'memory'))
  if (unit !== 'KiB' || !(size > 0))
    throw new SubpageError('LIBVIRT_REFUSED', `libvirt gives the memory as "${size} ${unit}", not in KiB`)
  return wholeMib(size)
}

/** Packets that the kernel moves pass by the buffers that hold them back. @returns addresses of the cards that were changed */
function withoutVhost(root: Element): string[] {
  const changed: string[] = []
  for (const card of childrenOf(find(root, 'devices'), 'interface')) {
    const model = find(card, 'model')
    const driver = find(card, 'driver')
    if (attribute(model, 'type') !== 'virtio' || attribute(driver, 'name') !== undefined) continue
    if (driver) driver.setAttribute('name', 'qemu')
    else insertAfter(model!, 'driver', { name: 'qemu' })
    changed.push(macOf(card))
  }
  return changed
}

const macOf = (card: Element) => attribute(find(card, 'mac'), 'address') ?? ''

const noteOf = (root: Element) => find(root, `metadata/${noteName}`)

function note(root: Element, values: Record<string, string>): void {
  const before = childrenOf(root).filter(({ nodeName }) =>
    /^(name|uuid|genid|title|description)$/.test(nodeName),
  )
  const metadata = find(root, 'metadata') ?? insertAfter(before.at(-1)!, 'metadata', {})
  append(metadata, noteName, { 'xmlns:subpage': noteNamespace, ...values }, noteNamespace)
}

/** Of a domain that is prepared, what the shim is told. */
function variable(document: Document, name: string): string {
  const variables = childrenOf(find(rootOf(document), 'qemu:commandline'), 'qemu:env')
  return (
    attribute(
      variables.find((env) => attribute(env, 'name') === name),
      'value',
    ) ?? ''
  )
}

/** The directory of the files of all domains, as a prepared one has it; undefined: it is not prepared. */
export function baseOf(document: Document): string | undefined {
  const lease = isPrepared(document) ? variable(document, 'SUBPAGE_LEASE') : ''
  return lease === '' ? undefined : dirname(dirname(lease))
}

/** A prepared description whose QEMU waits for its state; that is no start of the guest. */
export function waiting(xml: string): string {
  const document = parseDomain(xml)
  const commandline = find(rootOf(document), 'qemu:commandline')!
  const before = childrenOf(commandline, 'qemu:env')[0]
  for (const env of childrenOf(commandline, 'qemu:env'))
    if (attribute(env, 'name') === 'SUBPAGE_HELD') remove(env)
  for (const value of ['-incoming', 'defer'])
    append(commandline, 'qemu:arg', { value }, qemuNamespace, before)
  return formatDomain(document)
}

const markName = 'subpage:standby'

/** The description of a domain that is here only as a standby. */
export function marked(xml: string): string {
  const document = parseDomain(xml)
  append(find(rootOf(document), 'metadata')!, markName, { 'xmlns:subpage': markNamespace }, markNamespace)
  return formatDomain(document)
}

export const hasMark = (xml: string): boolean =>
  find(rootOf(parseDomain(xml)), `metadata/${markName}`) !== undefined

export function unmarked(xml: string): string {
  const document = parseDomain(xml)
  remove(find(rootOf(document), `metadata/${markName}`)!)
  return formatDomain(document)
}
