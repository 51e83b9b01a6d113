/**
 * Guests with several NUMA nodes. Each has memory of its own (-object memory-backend-ram), which the shim has QEMU put into the RAM file,
 * one behind the other (native/shim/nodes.c): for all else they are one piece of RAM.
 */
import { SubpageError } from '../errors.ts'
import { formatBytes } from '../units.ts'
import { refuse } from './option-policy.ts'
import { type OptionPart, parseOption } from './option-syntax.ts'

/** As the shim has it (native/shim/shim.h). */
export const nodesMax = 8
const pageBytes = 4096

/** Of parts of `size=`, as QEMU reads them: bytes without a unit. */
const units = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

interface Backend {
  id: string
  bytes: number
}

/**
 * @returns bytes of the memory of each node, in order; undefined when the guest's RAM is one piece
 * @param options those of the user, which have passed option-policy.ts
 * @throws SubpageError GUEST_UNPROTECTABLE when they are not all of its RAM
 */
export function nodesOf(options: readonly string[], ramBytes: number): number[] | undefined {
  const backends = values(options, '-object').flatMap(backendOf)
  const nodes = values(options, '-numa').filter((parts) => kindOf(parts, 'type') === 'node')
  const used = nodes
    .map((parts, at) => ({
      id: propertyOf(parts, 'memdev'),
      node: Number(propertyOf(parts, 'nodeid') ?? at),
    }))
    .filter(({ id }) => id !== undefined)
    .toSorted((one, other) => one.node - other.node)
  if (used.length === 0 && backends.length === 0 && nodes.length === 0) return undefined
  if (used.length === 0)
    refuse('-numa', 'each node needs its memory: -object memory-backend-ram,id=ID,size=SIZE and memdev=ID')
  if (used.length > nodesMax) refuse('-numa', `${nodesMax} nodes with memory at most`)
  for (const { id } of backends)
    if (used.filter((node) => node.id === id).length !== 1)
      refuse(`-object memory-backend-ram,id=${id}`, 'it is to be the memory of one node: -numa node,memdev=')
  const bytes = used.map(({ id }, at) => {
    const place = backends.findIndex((backend) => backend.id === id)
    if (place < 0) refuse(`-numa node,memdev=${id}`, `there is no -object memory-backend-ram,id=${id}`)
    // Their order in the RAM file is that of the guest's addresses.
    if (place !== at) refuse('-object memory-backend-ram', 'list them in the order of their nodes')
    return backends[place]!.bytes
  })
  const sum = bytes.reduce((total, one) => total + one, 0)
  if (sum !== ramBytes)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `the guest has ${formatBytes(ramBytes)} (--ram), and its nodes ${formatBytes(sum)} together: give --ram as much as they have`,
    )
  return bytes
}

function backendOf(parts: OptionPart[]): Backend[] {
  if (kindOf(parts, 'qom-type') !== 'memory-backend-ram') return []
  const id = propertyOf(parts, 'id') ?? ''
  const [, number, unit] = /^(\d+)([KMGT]?)$/i.exec(propertyOf(parts, 'size') ?? '') ?? []
  const bytes = Number(number) * units[(unit ?? '').toUpperCase() as keyof typeof units]
  if (!(bytes > 0) || bytes % pageBytes !== 0)
    refuse(`-object memory-backend-ram,id=${id}`, 'its size is not a number of whole pages')
  return [{ id, bytes }]
}

/** Parts of the value of each option of this name. */
const values = (options: readonly string[], flag: string): OptionPart[][] =>
  options.flatMap((word, at) => (word === flag ? [parseOption(options[at + 1] ?? '')] : []))

const kindOf = (parts: OptionPart[], key: string) =>
  parts[0]?.key === undefined ? parts[0]?.value : propertyOf(parts, key)

const propertyOf = (parts: OptionPart[], key: string) => parts.find((part) => part.key === key)?.value
