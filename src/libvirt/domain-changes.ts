/**
 * What a domain that runs has otherwise than its definition, by which the other host would start it: something was plugged, or the
 * definition was edited. A device state loads only into the same machine.
 */
import type { Document, Element } from '@xmldom/xmldom'
import { nodesOf } from './domain-nodes.ts'
import { attribute, childrenOf, find, rootOf, textAt } from './domain-xml.ts'

/** Names of the first part that differs; undefined: none does. */
export function changeOf(live: Document, definition: Document): string | undefined {
  const [runs, next] = [rootOf(live), rootOf(definition)]
  for (const path of ['memory', 'vcpu', 'os/type']) if (partOf(runs, path) !== partOf(next, path)) return path
  if (String(nodesOf(runs)) !== String(nodesOf(next))) return 'cpu/numa'
  const [now, then] = [devicesOf(runs), devicesOf(next)]
  const plugged = now.find((device) => count(now, device) > count(then, device))
  const missing = then.find((device) => count(then, device) > count(now, device))
  return plugged ?? missing
}

const partOf = (root: Element, path: string) =>
  `${textAt(root, path)} ${attribute(find(root, path), 'machine')} ${attribute(find(root, path), 'current')}`

const count = (devices: string[], device: string) => devices.filter((one) => one === device).length

/** What is seen from inside: what it is, and where it is plugged in. */
function devicesOf(root: Element): string[] {
  return childrenOf(find(root, 'devices'))
    .filter(({ nodeName }) => !/^(emulator|graphics|audio)$/.test(nodeName))
    .map((element) => {
      const own = ['type', 'model', 'device', 'index', 'bus'].map((name) => attribute(element, name))
      const model = attribute(find(element, 'model'), 'type')
      const target = find(element, 'target')
      const disk = element.nodeName === 'disk' ? [attribute(target, 'dev'), attribute(target, 'bus')] : []
      const mac = attribute(find(element, 'mac'), 'address')
      const address = find(element, 'address')
      const place = address ? [...address.attributes].map(({ value }) => value).join(':') : undefined
      return [element.nodeName, ...own, model, ...disk, mac, place].filter(Boolean).join(' ')
    })
}
