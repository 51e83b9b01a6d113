/**
 * Memory that was plugged into a guest, or out of it, while it ran. What is plugged in belongs to no standby, as with any device; and what was
 * plugged out is gone from the RAM file: a memory device that takes its place, by the same name even, is other memory.
 *
 * A memory device has no section in the device state, and a look at QEMU's devices comes once a second. So each pause asks how much is
 * plugged in, where the machine has room for it at all; and QEMU says when a device has gone, for another one may take its place before the
 * next pause.
 */
import { statSync } from 'node:fs'
import type { Difference } from '../replication/guest.ts'
import { readShimStatus } from '../tracking/shim.ts'
import { formatBytes } from '../units.ts'
import type { QmpCommand, QmpEvent } from './qmp.ts'

/** QEMU's `query-memory-devices`; not of all kinds. */
export interface MemoryDevice {
  type: string
  data: { id?: string; addr?: number; size: number; slot?: number }
}

/** QEMU's `query-memory-size-summary`. */
interface Summary {
  'plugged-memory'?: number
}

export class PluggedMemory {
  readonly #shimStatusPath: string
  /** Of the file that was read last: it is replaced when it changes. */
  #inode: number | undefined
  #unplugged = 0
  /** In all devices, as of the last look. */
  #lookedBytes: number | undefined
  /** In the last pause; undefined where nothing can be plugged in. */
  #pausedBytes: number | undefined
  #slots = 0
  /** Names of the devices, as of the last look. */
  #names: readonly (string | undefined)[] = []
  /** One that has gone since the last look. */
  #gone: string | undefined

  constructor(shimStatusPath: string) {
    this.#shimStatusPath = shimStatusPath
  }

  /** What a look at QEMU has found. */
  looked(slots: number, devices: readonly MemoryDevice[]): void {
    this.#slots = slots
    this.#names = devices.map(({ data }) => data.id)
    this.#gone = undefined
    this.#lookedBytes = devices.reduce((sum, { data }) => sum + data.size, 0)
  }

  /** What to ask within a pause. */
  get commands(): QmpCommand[] {
    return this.#slots > 0 ? [{ execute: 'query-memory-size-summary' }] : []
  }

  /** The answer. */
  paused(answer: unknown): void {
    this.#pausedBytes = (answer as Summary | undefined)?.['plugged-memory']
  }

  heard({ event, data }: QmpEvent): void {
    const { device } = (data ?? {}) as { device?: string }
    if (event === 'DEVICE_DELETED' && device !== undefined && this.#names.includes(device))
      this.#gone = device
  }

  get difference(): Difference | undefined {
    const unplugged = this.#unpluggedNow()
    if (unplugged > 0)
      return {
        what: `memory that it was started with was unplugged (${unplugged} of its memory backends); what is in its place is not in its RAM file`,
        lasting: true,
      }
    if (this.#gone !== undefined) return { what: `the memory ${this.#gone} was plugged out`, lasting: false }
    const [now, then] = [this.#pausedBytes, this.#lookedBytes]
    if (now === undefined || then === undefined || now === then) return undefined
    return { what: `${formatBytes(now)} are plugged in, and were ${formatBytes(then)}`, lasting: false }
  }

  /** Backends; costs some microseconds. */
  #unpluggedNow(): number {
    const inode = statSync(this.#shimStatusPath, { throwIfNoEntry: false })?.ino
    if (inode !== this.#inode) {
      this.#inode = inode
      this.#unplugged = readShimStatus(this.#shimStatusPath)?.unplugged ?? 0
    }
    return this.#unplugged
  }
}

/** A part of a machine, as people may read it. */
export const memoryPart = ({ type, data: { id, addr, size, slot } }: MemoryDevice): string =>
  `memory ${id ?? type} of ${formatBytes(size)} at 0x${(addr ?? 0).toString(16)}${slot === undefined ? '' : ` in slot ${slot}`}`
