/**
 * SPICE in a domain's description, as virt-manager gives it by default, and how `prepare` does without it: the screen becomes one of VNC,
 * and the channels that only a SPICE client uses go. The server of SPICE has a state of its own, clients and what they have been shown,
 * which is not in the device state. The display device stays, qxl too.
 */
import type { Element } from '@xmldom/xmldom'
import { DOMParser, XMLSerializer } from '@xmldom/xmldom'
import { attribute, childrenOf, find, insertAt, remove } from './domain-xml.ts'

/** Of each part what becomes of it, for people; undefined: it is no part of SPICE. */
export function spiceChange(element: Element): string | undefined {
  const type = attribute(element, 'type')
  switch (element.nodeName) {
    case 'graphics':
      return type === 'spice' && !hasVnc(element)
        ? 'prepare makes VNC of it: the state of the SPICE server is not in the device state'
        : undefined
    case 'channel':
      return type === 'spicevmc' ? 'prepare takes it out: only a SPICE client uses it' : undefined
    case 'redirdev':
      return type === 'spicevmc'
        ? 'prepare takes it out: what a SPICE client has plugged in would not be on the other host'
        : undefined
    case 'audio':
      return type === 'spice' ? 'prepare makes it silent: only a SPICE client hears it' : undefined
    default:
      return undefined
  }
}

/** A second screen, which has a password of its own, is for people to take out. */
const hasVnc = (graphics: Element) =>
  childrenOf(graphics.parentNode as Element, 'graphics').some((one) => attribute(one, 'type') === 'vnc')

/** What was taken out, or changed: as it was, less its password. */
interface Former {
  /** How many of its kind were before it; libvirt puts the kinds in order. */
  nth: number
  xml: string
  /** Something else has its place now. */
  replaced: boolean
}

/** Of which a part of SPICE may be: always in this order, whatever order libvirt gives them. */
const kinds = ['audio', 'channel', 'graphics', 'redirdev']

/** Changes a description. @returns what was there, for `withSpice`; empty when it had none */
export function withoutSpice(root: Element): string {
  const parts = kinds.flatMap((kind) =>
    childrenOf(find(root, 'devices'), kind)
      .map((device, nth) => ({ device, nth }))
      .filter(({ device }) => spiceChange(device) !== undefined),
  )
  const former: Former[] = parts.map(({ device, nth }) => {
    const xml = serialized(device)
    const replaced = /^(audio|graphics)$/.test(device.nodeName)
    if (!replaced) remove(device)
    else if (device.nodeName === 'audio') device.setAttribute('type', 'none')
    else becomeVnc(device)
    return { nth, xml, replaced }
  })
  return former.length === 0 ? '' : JSON.stringify(former)
}

/**
 * Takes exactly that back. Devices may have been added and taken away since: what was changed is found by what it is.
 * @param text of `withoutSpice`
 */
export function withSpice(root: Element, text: string): void {
  const parent = find(root, 'devices')
  if (!parent) return
  for (const { nth, xml, replaced } of JSON.parse(text) as Former[]) {
    const document = new DOMParser().parseFromString(xml, 'text/xml')
    const element = parent.ownerDocument!.importNode(document.documentElement!, true) as Element
    const kind = childrenOf(parent, element.nodeName)
    if (!replaced) {
      leaveTakenPlace(parent, element)
      insertAt(parent, element, kind[nth] ?? after(parent, kind.at(-1)))
      continue
    }
    const there = kind.find((one) => isChanged(one, element))
    // Somebody has taken it out, or has put something of his own there.
    if (!there) continue
    const password = attribute(there, 'passwd')
    if (password !== undefined) element.setAttribute('passwd', password)
    parent.replaceChild(element, there)
  }
}

/** Whether it is what an element of SPICE has become. */
const isChanged = (there: Element, former: Element) =>
  there.nodeName === 'graphics'
    ? attribute(there, 'type') === 'vnc'
    : attribute(there, 'type') === 'none' && attribute(there, 'id') === attribute(former, 'id')

function after(parent: Element, element: Element | undefined): Element | undefined {
  const children = childrenOf(parent)
  return element && children[children.indexOf(element) + 1]
}

/** Libvirt chooses another place for what comes back, if another device has its own by now. */
function leaveTakenPlace(parent: Element, element: Element): void {
  const address = find(element, 'address')
  if (!address) return
  const taken = childrenOf(parent).some((device) => {
    const other = find(device, 'address')
    return other !== undefined && placeOf(other) === placeOf(address)
  })
  if (taken) remove(address)
}

const placeOf = (address: Element) =>
  [...address.attributes]
    .map(({ name, value }) => `${name}=${value}`)
    .sort()
    .join(' ')

/** Libvirt keeps these of both kinds. */
const kept = new Set(['type', 'passwd', 'passwdValidTo', 'keymap', 'listen'])

function becomeVnc(graphics: Element): void {
  for (const { name } of [...graphics.attributes]) if (!kept.has(name)) graphics.removeAttribute(name)
  graphics.setAttribute('type', 'vnc')
  graphics.setAttribute('port', '-1')
  graphics.setAttribute('autoport', 'yes')
  for (const child of childrenOf(graphics))
    if (child.nodeName !== 'listen' || attribute(child, 'type') === 'none') remove(child)
}

function serialized(element: Element): string {
  const copy = element.cloneNode(true) as Element
  // Its place is kept: libvirt shows this to everybody.
  if (copy.hasAttribute('passwd')) copy.setAttribute('passwd', '')
  return new XMLSerializer().serializeToString(copy)
}
