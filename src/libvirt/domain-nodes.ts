/** NUMA nodes of a domain: memory that libvirt has QEMU allocate node by node, and that the shim puts into the RAM file (native/shim/nodes.c). */
import type { Element } from '@xmldom/xmldom'
import { nodesMax } from '../qemu/ram-nodes.ts'
import { attribute, childrenOf, find } from './domain-xml.ts'

const mib = 2 ** 20

/** Bytes of the memory of each node, in order, as libvirt has it made; undefined when the guest's RAM is one piece. */
export function nodesOf(root: Element): number[] | undefined {
  const cells = childrenOf(find(root, 'cpu/numa'), 'cell')
  return cells.length === 0
    ? undefined
    : cells
        .toSorted((one, other) => Number(attribute(one, 'id')) - Number(attribute(other, 'id')))
        .map((cell) => wholeMib(Number(attribute(cell, 'memory'))))
}

/** Libvirt has memory made in whole MiB. @returns bytes */
export const wholeMib = (kib: number) => Math.ceil((kib * 1024) / mib) * mib

/** Libvirt makes the memory of each node; it comes into our file only when it is anonymous memory of QEMU. */
export function nodeRefusals(root: Element): [part: string, reason: string][] {
  const refusals: [string, string][] = []
  const cells = childrenOf(find(root, 'cpu/numa'), 'cell')
  if (cells.length === 0) return []
  if (cells.length > nodesMax) refusals.push(['cpu/numa', `${nodesMax} nodes at most`])
  const shared = attribute(find(root, 'memoryBacking/access'), 'mode') === 'shared'
  if (shared || cells.some((cell) => attribute(cell, 'memAccess') === 'shared'))
    refusals.push(['cpu/numa', 'memory of nodes that is shared with another program is not in our file'])
  if (find(root, 'memoryBacking/source'))
    refusals.push(['memoryBacking/source', 'memory of nodes comes into our file as it is: leave it out'])
  for (const cell of cells)
    if (attribute(cell, 'memory') === undefined || attribute(cell, 'unit') !== 'KiB')
      refusals.push([
        `cpu/numa cell ${attribute(cell, 'id') ?? ''}`,
        'libvirt does not say its memory in KiB',
      ])
  return refusals
}
