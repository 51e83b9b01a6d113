/**
 * Tells whether the guest has sent anything since its last pause, without asking QEMU: a virtio network card counts the
 * packets it has taken from the guest in guest memory, in the `idx` of the transmit queue's used ring (virtio 1.2, 2.7.8).
 * QEMU is asked where that ring is, once and then now and then, since the guest's driver may set it up anew. A ring
 * that has moved meanwhile makes a checkpoint come earlier or later, never a wrong one.
 */
import type { Region } from '../memory/region.ts'
import { mappingsOf } from '../tracking/mappings.ts'
import type { Qmp } from './qmp.ts'

interface Queue {
  /** QEMU's name of the device. */
  path: string
  /** Guest-physical address of the used ring; 0 while the guest has no driver. */
  used: number
  /** Where its idx is in the RAM file; undefined while there is none. */
  offset: number | undefined
  /** What idx was at the last mark. */
  marked: number
}

/** Virtqueue of a single-queue card that carries what the guest sends; 0 is what it receives. */
const transmitQueue = 1
/** Offset of idx in the used ring, after `flags`. */
const idxOffset = 2
const lookAgainMs = 2_000

export class OutputWatch {
  readonly #qmp: Qmp
  readonly #netdevs: string[]
  readonly #ram: Region
  readonly #file: { pid: number; path: () => string }
  readonly #idx = new Uint8Array(2)
  /** Undefined until it is known, and when a card is not of the virtio kind. */
  #queues: Queue[] | undefined
  #lookedAt = Number.NEGATIVE_INFINITY

  /** @param file the process whose guest it is, and the RAM file that it has mapped as `ram` */
  constructor(qmp: Qmp, netdevs: string[], ram: Region, file: { pid: number; path: () => string }) {
    this.#qmp = qmp
    this.#netdevs = netdevs
    this.#ram = ram
    this.#file = file
  }

  /** In a pause: what was sent until now does not count. */
  mark(): void {
    for (const queue of this.#queues ?? []) queue.marked = this.#read(queue)
  }

  /** Undefined when it cannot be told, for now or for the cards of this guest. Costs a microsecond for each card. */
  get pending(): boolean | undefined {
    this.#lookAgain()
    return this.#queues?.some((queue) => this.#read(queue) !== queue.marked)
  }

  #read({ offset, marked }: Queue): number {
    if (offset === undefined) return marked
    this.#ram.readInto(offset, this.#idx)
    return this.#idx[0]! | (this.#idx[1]! << 8)
  }

  #lookAgain(): void {
    const now = performance.now()
    if (now - this.#lookedAt < lookAgainMs || this.#qmp.closed) return
    this.#lookedAt = now
    const looked = this.#queues ? Promise.all(this.#queues.map((queue) => this.#locate(queue))) : this.#find()
    // Without an answer the next look tries again; until then it cannot be told, or is told by the old place.
    looked.catch(() => undefined)
  }

  async #find(): Promise<void> {
    const devices = await this.#qmp.run<{ name: string; path: string }[]>('x-query-virtio')
    const cards = devices.filter(({ name }) => name === 'virtio-net')
    const netdevs = await Promise.all(cards.map(({ path }) => this.#netdevOf(path)))
    if (!this.#netdevs.every((netdev) => netdevs.includes(netdev))) return
    const queues = cards.map(({ path }) => ({ path, used: 0, offset: undefined, marked: 0 }))
    await Promise.all(queues.map((queue) => this.#locate(queue)))
    this.#queues = queues
  }

  /** The network backend of a card; undefined when its rings are of the packed kind, which have no such index. */
  async #netdevOf(path: string): Promise<string | undefined> {
    const packed = await this.#qmp.run<boolean>('qom-get', { path, property: 'packed' })
    if (packed) return undefined
    return await this.#qmp.run('qom-get', { path: path.replace(/\/virtio-backend$/, ''), property: 'netdev' })
  }

  async #locate(queue: Queue): Promise<void> {
    const status = await this.#qmp.run<{ 'vring-used': number }>('x-query-virtio-queue-status', {
      path: queue.path,
      queue: transmitQueue,
    })
    const used = status['vring-used']
    if (used === queue.used) return
    queue.offset = used === 0 ? undefined : await this.#offsetOf(used + idxOffset)
    queue.used = used
    queue.marked = this.#read(queue)
  }

  /** Where a guest-physical address lies in the RAM file; undefined when it is not RAM. */
  async #offsetOf(address: number): Promise<number | undefined> {
    const said = await this.#qmp.run<string>('human-monitor-command', {
      'command-line': `gpa2hva 0x${address.toString(16)}`,
    })
    const host = Number.parseInt(/\(ram\) is 0x([0-9a-f]+)/.exec(said)?.[1] ?? '', 16)
    const mapping = mappingsOf(this.#file.pid, this.#file.path()).find(
      ({ start, end }) => start <= host && host < end,
    )
    return mapping && mapping.firstPage * 4096 + host - mapping.start
  }
}
