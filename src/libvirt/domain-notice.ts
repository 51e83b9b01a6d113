/** What people find in the description of a domain that must not be started here: a line of its own, beside what they have written. */

import { define } from './definition.ts'
import { childrenOf, find, formatDomain, insertAfter, parseDomain, remove, rootOf } from './domain-xml.ts'
import type { Virsh } from './virsh.ts'

const prefix = 'subpage: '

/** @param notice undefined: none @returns the description of the domain; the same when nothing is to be changed */
export function withNotice(xml: string, notice: string | undefined): string {
  const document = parseDomain(xml)
  const root = rootOf(document)
  const found = find(root, 'description')
  const text = found?.textContent ?? ''
  const own = text === '' ? [] : text.split('\n').filter((line) => !line.startsWith(prefix))
  const lines = notice === undefined ? own : [...own, prefix + notice]
  const wanted = lines.join('\n')
  if (wanted === text) return xml
  if (wanted === '') remove(found!)
  else (found ?? insertAfter(placeIn(root), 'description', {})).textContent = wanted
  return formatDomain(document)
}

/** Libvirt has it in this order. */
const placeIn = (root: ReturnType<typeof rootOf>) =>
  childrenOf(root).findLast(({ nodeName }) => /^(name|uuid|genid|title)$/.test(nodeName))!

/** @param notice undefined: takes it away */
export async function noteInDomain(virsh: Virsh, name: string, notice: string | undefined): Promise<void> {
  const xml = await virsh.run('dumpxml', '--inactive', '--security-info', '--domain', name)
  const wanted = withNotice(xml, notice)
  if (wanted !== xml) await define(virsh, wanted)
}
