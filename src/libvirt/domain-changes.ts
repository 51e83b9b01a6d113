/**
 * What a domain that runs has otherwise than its definition, by which the other host would start it: something was plugged, or the
 * definition was edited. A device state loads only into the same machine.
 */
import type { Document, Element } from '@xmldom/xmldom'
import { backendsOf } from './domain-backends.ts'
import { attribute, childrenOf, find, rootOf, textAt } from './domain-xml.ts'

/** Names of the first part that differs; undefined: none does. */
export function changeOf(live: Document, definition: Document): string | undefined {
  const [runs, next] = [rootOf(live), rootOf(definition)]
  for (const path of ['memory', 'maxMemory', 'vcpu', 'os/type'])
    if (partOf(runs, path) !== partOf(next, path)) return path
  if (String(backendsOf(runs)) !== String(backendsOf(next))) return 'cpu/numa'
  const [now, then] = [devicesOf(runs), devicesOf(next)]
  const plugged = now.find((device) => count(now, device) > count(then, device))
  const missing = then.find((device) => count(then, device) > count(now, device))
  return plugged ?? missing
}

const partOf = (root: Element, path: string) =>
  ['machine', 'current', 'slots']
    .map((name) => attribute(find(root, path), name))
    .concat(textAt(root, path))
    .join(' ')

const count = (devices: string[], device: string) => devices.filter((one) => one === device).length

/** What is seen from inside: what it is, and where it is plugged in. */
function devicesOf(root: Element): string[] {
  return childrenOf(find(root, 'devices'))
    .filter(({ nodeName }) => !/^(emulator|graphics|audio)$/.test(nodeName))
    .map((element) => {
      const own = [typeOf(element)].concat(
        ['model', 'device', 'index', 'bus'].map((name) => attribute(element, name)),
      )
      const model = attribute(find(element, 'model'), 'type')
      const target = find(element, 'target')
      const disk = element.nodeName === 'disk' ? [attribute(target, 'dev'), attribute(target, 'bus')] : []
      const mac = attribute(find(element, 'mac'), 'address')
      const address = find(element, 'address')
      // Where memory begins libvirt says of a domain that runs.
      const named = [...(address?.attributes ?? [])].filter(({ name }) => name !== 'base')
      const place = address ? named.map(({ value }) => value).join(':') : undefined
      const memory = ['size', 'node'].map((name) => textAt(element, `target/${name}`))
      return [element.nodeName, ...own, model, ...disk, ...memory, mac, place].filter(Boolean).join(' ')
    })
}

/** Of a card on a network over a bridge of the host, libvirt shows that bridge when the domain runs. */
const typeOf = (element: Element) =>
  element.nodeName === 'interface' && attribute(find(element, 'source'), 'network') !== undefined
    ? 'network'
    : attribute(element, 'type')
