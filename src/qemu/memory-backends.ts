/**
 * Guests whose RAM QEMU allocates in several memory backends (-object memory-backend-ram): NUMA nodes, and memory devices (pc-dimm) that
 * are there from the start. The shim has QEMU put each into the RAM file, one behind the other (native/shim/backends.c): for all else they
 * are one piece of RAM.
 */
import { SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { formatBytes } from '../units.ts'
import { refuse } from './option-policy.ts'
import { type OptionPart, parseOption } from './option-syntax.ts'

const pageBytes = 4096

/** Of parts of `size=`, as QEMU reads them: bytes without a unit. */
const units = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/** How the RAM of a guest is made up. */
export interface MemoryLayout {
  /**
   * Bytes of each memory backend, in the order in which QEMU makes them: that of the main memory or those of the nodes, then those of the
   * memory devices. Undefined: all RAM is one backend, which is the RAM file itself.
   */
  backends: number[] | undefined
  /** What is there without memory devices. */
  mainBytes: number
  /** NUMA nodes with memory of their own; 0: the main memory is one backend, which subpage gives. */
  nodes: number
  /** Memory devices. */
  devices: number
}

interface Backend {
  id: string
  bytes: number
}

/** Whoever uses a backend: an option, by the backend's name. */
interface User {
  option: string
  id: string | undefined
}

/**
 * @param options those of the user, which have passed option-policy.ts
 * @param ramBytes all RAM of the guest
 * @throws SubpageError GUEST_UNPROTECTABLE when they do not describe all of it
 */
export function memoryLayout(type: string, options: readonly string[], ramBytes: number): MemoryLayout {
  const given = values(options, '-object').flatMap(backendOf)
  const nodes = nodesOf(options)
  const devices = devicesOf(options)
  if (given.length === 0 && devices.length === 0 && nodes.length === 0)
    return { backends: undefined, mainBytes: ramBytes, nodes: 0, devices: 0 }
  if (devices.length > 0 && /^(microvm|isapc)\b/.test(type))
    refuse('-device pc-dimm', `a machine of type ${type} has no slots for memory; q35 and pc have`)
  const own = nodes.length === 0 ? 1 : 0
  if (own + nodes.length + devices.length > limits.memoryBackends.value)
    refuse('-object memory-backend-ram', `${limits.memoryBackends.value} memory backends at most`)
  const users = [...nodes, ...devices]
  for (const { id } of given)
    if (users.filter((user) => user.id === id).length !== 1)
      refuse(
        `-object memory-backend-ram,id=${id}`,
        'it is to be the memory of one node (-numa node,memdev=) or of one memory device (-device pc-dimm,memdev=)',
      )
  const used = users.map(({ option, id }, at) => {
    const place = given.findIndex((backend) => backend.id === id)
    if (place < 0) refuse(`${option},memdev=${id}`, `there is no -object memory-backend-ram,id=${id}`)
    // Their order in the RAM file is that of the command line, by which QEMU allocates them.
    if (place !== at)
      refuse(
        '-object memory-backend-ram',
        'list them in the order of their nodes, and behind them in the order of their memory devices',
      )
    return given[place]!.bytes
  })
  const sum = used.reduce((total, one) => total + one, 0)
  const mainBytes = ramBytes - sum
  if (own === 1 && mainBytes <= 0)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `the guest has ${formatBytes(ramBytes)} (--ram), and its memory devices have ${formatBytes(sum)}: --ram counts them, too, so give as much as the main memory and they have together`,
    )
  if (own === 0 && mainBytes !== 0)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `the guest has ${formatBytes(ramBytes)} (--ram), and its memory backends have ${formatBytes(sum)} together: give --ram as much as they have`,
    )
  const pluggedBytes = used.slice(nodes.length).reduce((total, one) => total + one, 0)
  return {
    backends: own === 1 ? [mainBytes, ...used] : used,
    mainBytes: ramBytes - pluggedBytes,
    nodes: nodes.length,
    devices: devices.length,
  }
}

/** In the order of their numbers. A node may be without memory, but not all may. */
function nodesOf(options: readonly string[]): User[] {
  const nodes = values(options, '-numa').filter((parts) => kindOf(parts, 'type') === 'node')
  const users = nodes
    .map((parts, at) => ({
      option: '-numa node',
      id: propertyOf(parts, 'memdev'),
      number: Number(propertyOf(parts, 'nodeid') ?? at),
    }))
    .filter(({ id }) => id !== undefined)
    .toSorted((one, other) => one.number - other.number)
  if (nodes.length > 0 && users.length === 0)
    refuse('-numa', 'each node needs its memory: -object memory-backend-ram,id=ID,size=SIZE and memdev=ID')
  return users
}

function devicesOf(options: readonly string[]): User[] {
  return values(options, '-device')
    .filter((parts) => kindOf(parts, 'driver') === 'pc-dimm')
    .map((parts) => ({ option: '-device pc-dimm', id: propertyOf(parts, 'memdev') }))
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

/** QEMU takes the last one. */
const propertyOf = (parts: OptionPart[], key: string) => parts.findLast((part) => part.key === key)?.value
