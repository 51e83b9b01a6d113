/**
 * Memory of a domain that libvirt has QEMU allocate piece by piece, NUMA nodes and memory devices (DIMMs): the shim puts each memory backend
 * into the RAM file (native/shim/backends.c). Libvirt gives the nodes in the order of their numbers, and behind them the devices in the
 * order of its description; it has devices only in domains with nodes (checked on 9.0).
 */
import type { Element } from '@xmldom/xmldom'
import { limits } from '../limits.ts'
import { attribute, childrenOf, find, textAt } from './domain-xml.ts'

const mib = 2 ** 20

/** Bytes of each memory backend, in order, as libvirt has it made; undefined when the guest's RAM is one piece. */
export function backendsOf(root: Element): number[] | undefined {
  const cells = cellsOf(root)
  if (cells.length === 0) return undefined
  const nodes = cells
    .toSorted((one, other) => Number(attribute(one, 'id')) - Number(attribute(other, 'id')))
    .map((cell) => Number(attribute(cell, 'memory')))
  const devices = dimmsOf(root).map((dimm) => Number(textAt(dimm, 'target/size')))
  return [...nodes, ...devices].map(wholeMib)
}

/** Libvirt has memory made in whole MiB. @returns bytes */
export const wholeMib = (kib: number) => Math.ceil((kib * 1024) / mib) * mib

/** Libvirt makes the memory of each node; it comes into our file only when it is anonymous memory of QEMU. */
export function backendRefusals(root: Element): [part: string, reason: string][] {
  const refusals: [string, string][] = []
  const cells = cellsOf(root)
  const dimms = dimmsOf(root)
  if (cells.length === 0 && dimms.length > 0)
    refusals.push(['memory dimm', 'a domain with memory devices needs a NUMA node, under <cpu>'])
  if (cells.length === 0) return refusals
  if (cells.length + dimms.length > limits.memoryBackends.value)
    refusals.push(['cpu/numa', `${limits.memoryBackends.value} nodes and memory devices at most`])
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

/** Why a memory device cannot be had; undefined when it can. @param element of the model `dimm` */
export function dimmRefusal(element: Element): string | undefined {
  if (attribute(element, 'access') === 'shared')
    return 'memory that is shared with another program is not in our file'
  if (find(element, 'source'))
    return 'its memory is of a kind, or of a node, of this host: leave its source out'
  const size = find(element, 'target/size')
  if (attribute(size, 'unit') !== 'KiB' || !(Number(textAt(element, 'target/size')) > 0))
    return 'libvirt does not say its memory in KiB'
  return undefined
}

const cellsOf = (root: Element) => childrenOf(find(root, 'cpu/numa'), 'cell')

const dimmsOf = (root: Element) =>
  childrenOf(find(root, 'devices'), 'memory').filter((element) => attribute(element, 'model') === 'dimm')
