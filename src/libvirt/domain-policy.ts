/** Why a libvirt domain cannot be protected, part by part; each reason says what to change where something can be changed. */
import type { Document, Element } from '@xmldom/xmldom'
import { SubpageError } from '../errors.ts'
import { readOptions } from '../qemu/option-policy.ts'
import { elementRules } from './device-elements.ts'
import { backendRefusals } from './domain-backends.ts'
import { nameRefusal } from './domain-files.ts'
import { firmwareRefusal } from './domain-firmware.ts'
import { spiceChange } from './domain-spice.ts'
import { attribute, childrenOf, find, rootOf, textAt } from './domain-xml.ts'

export interface Refusal {
  /** As it is called in the description, such as `disk vda`. */
  part: string
  reason: string
}

/** @param document a domain's description without what `prepare` adds to it */
export function refusalsOf(document: Document): Refusal[] {
  const root = rootOf(document)
  return [...machineRefusals(root), ...deviceRefusals(root), ...optionRefusals(root)]
}

/** @param more what else is against it @throws SubpageError GUEST_UNPROTECTABLE with all reasons */
export function refuseUnprotectable(document: Document, more: readonly Refusal[] = []): void {
  const refusals = [...refusalsOf(document), ...more]
  if (refusals.length > 0)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `cannot protect the domain ${textAt(rootOf(document), 'name')}: ${refusals.map(({ part, reason }) => `${part}: ${reason}`).join('; ')}`,
    )
}

function machineRefusals(root: Element): Refusal[] {
  const refusals: Refusal[] = []
  const refuse = (part: string, reason: string) => refusals.push({ part, reason })
  const type = attribute(root, 'type') ?? ''
  const nameReason = nameRefusal(textAt(root, 'name'))
  if (nameReason !== undefined) refuse('name', nameReason)
  if (!/^(kvm|qemu)$/.test(type)) refuse(`domain type ${type}`, 'only KVM and QEMU run on both hosts alike')
  const os = find(root, 'os/type')
  const arch = attribute(os, 'arch') ?? ''
  if (arch !== 'x86_64') refuse(`os arch ${arch}`, 'only x86_64 is known here')
  const machine = attribute(os, 'machine')
  const machineReason = machine && refusedBy(() => readOptions(['-machine', machine], []))
  if (machineReason) refuse(`os machine ${machine}`, machineReason)
  const firmwareReason = firmwareRefusal(root)
  if (firmwareReason !== undefined) refuse('os firmware', firmwareReason)
  for (const [path, reason] of wholeDomain) if (find(root, path)) refuse(path, reason)
  for (const [part, reason] of backendRefusals(root)) refuse(part, reason)
  if (attribute(find(root, 'memoryBacking/allocation'), 'mode') === 'immediate')
    refuse('memoryBacking/allocation', 'libvirt would take the memory twice: leave mode="immediate" out')
  for (const element of ['on_poweroff', 'on_crash'])
    if (/^(preserve|restart|rename-restart)$/.test(textAt(root, element)) && element === 'on_poweroff')
      refuse(element, 'the end of the guest must be the end of QEMU: destroy')
    else if (textAt(root, element) === 'preserve')
      refuse(element, 'nothing may leave a guest standing that panicked: destroy or restart')
  return refusals
}

const wholeDomain: [path: string, reason: string][] = [
  ['memoryBacking/hugepages', 'writes are tracked by pages of 4 KiB'],
  ['memoryBacking/locked', 'libvirt would lock the memory twice'],
  ['launchSecurity', 'its memory is encrypted: another host could not read it'],
  ['qemu:override', 'it changes devices after they were checked'],
  ['qemu:capabilities', 'it changes options after they were checked'],
]

function deviceRefusals(root: Element): Refusal[] {
  return childrenOf(find(root, 'devices')).flatMap((element) => {
    const kind = element.nodeName
    const rule = Object.hasOwn(elementRules, kind) ? elementRules[kind] : undefined
    if (spiceChange(element) !== undefined) return []
    const reason = rule ? rule(element) : 'it is not on the list of devices that another host can take over'
    return reason === undefined ? [] : [{ part: partName(element), reason }]
  })
}

/**
 * A network of libvirt may be a macvtap or a card that is passed through: its domain shows that when it runs.
 * @param live the description of one that runs
 */
export function cardRefusals(live: Document): Refusal[] {
  return childrenOf(find(rootOf(live), 'devices'), 'interface').flatMap((card) => {
    const reason = elementRules.interface?.(card)
    return reason === undefined ? [] : [{ part: partName(card), reason }]
  })
}

/** What `prepare` changes that people see: parts of a description, and what becomes of each. */
export function changesOf(document: Document): Refusal[] {
  return childrenOf(find(rootOf(document), 'devices')).flatMap((element) => {
    const reason = spiceChange(element)
    return reason === undefined ? [] : [{ part: partName(element), reason }]
  })
}

/** As virsh names it, where it does. */
function partName(element: Element): string {
  const own =
    attribute(find(element, 'target'), 'dev') ??
    attribute(find(element, 'mac'), 'address') ??
    attribute(element, 'model') ??
    attribute(find(element, 'model'), 'type') ??
    attribute(element, 'type')
  return own === undefined ? element.nodeName : `${element.nodeName} ${own}`
}

/** What somebody has added under <qemu:commandline>. */
function optionRefusals(root: Element): Refusal[] {
  const commandline = find(root, 'qemu:commandline')
  const given = childrenOf(commandline, 'qemu:arg').map((element) => attribute(element, 'value') ?? '')
  const reason = given.includes('-numa')
    ? 'describe NUMA nodes under <cpu>'
    : refusedBy(() => readOptions(given))
  return reason === undefined ? [] : [{ part: 'qemu:commandline', reason }]
}

function refusedBy(check: () => unknown): string | undefined {
  try {
    check()
    return undefined
  } catch (error) {
    if (!(error instanceof SubpageError)) throw error
    return error.message.replace(/^cannot protect a guest with /, '')
  }
}
