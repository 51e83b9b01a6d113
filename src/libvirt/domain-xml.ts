/**
 * The description of a libvirt domain (https://libvirt.org/formatdomain.html), read and changed in place: what we do not touch keeps its
 * order, comments and spaces.
 */
import { createRequire } from 'node:module'
import type { Document, Element, Node } from '@xmldom/xmldom'
import { SubpageError } from '../errors.ts'

/**
 * Not with this file: each supervisor would hold its code, some 2 MiB. That of a domain calls loadDomainXml() when it meets its guest, for a
 * file that an upgrade has replaced since would be of another release.
 */
// Loaded early: as above.
const xml = (): typeof import('@xmldom/xmldom') => createRequire(import.meta.url)('@xmldom/xmldom')
export const loadDomainXml = (): unknown => xml()

export const qemuNamespace = 'http://libvirt.org/schemas/domain/qemu/1.0'

/** @throws SubpageError LIBVIRT_REFUSED for what is no domain */
export function parseDomain(text: string): Document {
  const wrong = (why: string, cause?: unknown) =>
    new SubpageError('LIBVIRT_REFUSED', `libvirt's description of the domain cannot be read: ${why}`, {
      cause,
    })
  let document: Document
  try {
    document = new (xml().DOMParser)({
      onError: (level, message) => {
        if (level !== 'warning') throw new Error(message)
      },
    }).parseFromString(text, 'text/xml')
  } catch (error) {
    throw wrong((error as Error).message, error)
  }
  if (document.documentElement?.nodeName !== 'domain') throw wrong('it has no <domain>')
  return document
}

export function formatDomain(document: Document): string {
  return `${new (xml().XMLSerializer)().serializeToString(document).trimEnd()}\n`
}

export const rootOf = (document: Document): Element => document.documentElement!

const isElement = (node: Node): node is Element => node.nodeType === node.ELEMENT_NODE

/** Child elements of a name; of all names without one. */
export function childrenOf(parent: Element | undefined, name?: string): Element[] {
  const children: Element[] = []
  for (let node = parent?.firstChild ?? null; node; node = node.nextSibling)
    if (isElement(node) && (name === undefined || node.nodeName === name)) children.push(node)
  return children
}

/** Follows a path of names, such as `devices/video`; the first of each. */
export function find(from: Element, path: string): Element | undefined {
  let at: Element | undefined = from
  for (const name of path.split('/')) at = childrenOf(at, name)[0]
  return at
}

export const textAt = (from: Element, path: string) => find(from, path)?.textContent?.trim() ?? ''

/** Undefined: the element or the attribute is not there. */
export function attribute(from: Element | undefined, name: string): string | undefined {
  return from?.getAttribute(name) ?? undefined
}

/** Adds an element as the last of its parent, or before another, on a line of its own. */
export function append(
  parent: Element,
  name: string,
  attributes: Record<string, string>,
  namespace?: string,
  before?: Element,
): Element {
  const added = make(parent.ownerDocument!, name, attributes, namespace)
  const indent = `${indentOf(parent)}  `
  if (before) {
    parent.insertBefore(added, before)
    parent.insertBefore(lineBreak(parent, indent), before)
    return added
  }
  const last = parent.lastChild
  // What there is before the parent's end.
  const tail = last && isSpace(last) ? last : null
  parent.insertBefore(lineBreak(parent, indent), tail)
  parent.insertBefore(added, tail)
  if (!tail) parent.appendChild(lineBreak(parent, indentOf(parent)))
  return added
}

/** Adds an element behind another one, on a line of its own. */
export function insertAfter(place: Element, name: string, attributes: Record<string, string>): Element {
  const added = make(place.ownerDocument!, name, attributes)
  const next = place.nextSibling
  place.parentNode!.insertBefore(lineBreak(place, indentOf(place)), next)
  place.parentNode!.insertBefore(added, next)
  return added
}

/** Adds an element on a line of its own. @param before the child that follows it; undefined: as the last one */
export function insertAt(parent: Element, added: Element, before: Element | undefined): void {
  const first = childrenOf(parent)[0]
  const indent = first ? indentOf(first) : `${indentOf(parent)}  `
  const last = parent.lastChild
  const next = before ?? (last && isSpace(last) ? last : null)
  if (before) {
    parent.insertBefore(added, next)
    parent.insertBefore(lineBreak(parent, indent), next)
  } else {
    parent.insertBefore(lineBreak(parent, indent), next)
    parent.insertBefore(added, next)
  }
}

function make(
  document: Document,
  name: string,
  attributes: Record<string, string>,
  namespace?: string,
): Element {
  const made = document.createElementNS(namespace ?? null, name)
  for (const [key, value] of Object.entries(attributes))
    if (key.startsWith('xmlns:')) made.setAttributeNS('http://www.w3.org/2000/xmlns/', key, value)
    else made.setAttribute(key, value)
  return made
}

const lineBreak = (near: Element, indent: string) => near.ownerDocument!.createTextNode(`\n${indent}`)

const isSpace = (node: Node) => node.nodeType === node.TEXT_NODE && node.nodeValue?.trim() === ''

/** Takes an element out, with the line that it has. */
export function remove(element: Element): void {
  const before = element.previousSibling
  const parent = element.parentNode!
  if (before && isSpace(before)) parent.removeChild(before)
  parent.removeChild(element)
}

/** Removes an element in which nothing is left. */
export function removeIfEmpty(element: Element | undefined): void {
  if (element && childrenOf(element).length === 0 && element.attributes.length === 0) remove(element)
}

function indentOf(element: Element): string {
  const before = element.previousSibling
  return before && isSpace(before) ? (/[ \t]*$/.exec(before.nodeValue ?? '')?.[0] ?? '') : ''
}
