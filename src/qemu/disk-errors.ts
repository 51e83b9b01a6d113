/**
 * Errors of the disks of a running guest on this host, as QEMU reports them. What the guest sees of one is up to QEMU: by its
 * `werror` and `rerror` a full file system stops the guest until there is room, and any other error goes to the guest.
 */
import { EventEmitter } from 'node:events'
import { type Disk, diskNode, mirrorNode } from './disk.ts'
import type { QmpEvent } from './qmp.ts'

export interface DiskError {
  disk: string
  /** Such as `write: No space left on device`. */
  what: string
  code: 'DISK_FULL' | 'DISK_FAILED'
  /** The guest stands still until it can be repeated. */
  stops: boolean
}

export class DiskErrors extends EventEmitter<{ failed: [DiskError] }> {
  readonly #seen = new Map<string, { count: number; last: DiskError }>()

  of(disk: string): { count: number; last: DiskError } | undefined {
    return this.#seen.get(disk)
  }

  /** @param disks as they are now */
  heard({ event, data }: QmpEvent, disks: readonly Disk[]): void {
    if (event !== 'BLOCK_IO_ERROR') return
    const node = data?.['node-name']
    const disk = disks.find((one) => node === diskNode(one) || node === mirrorNode(one.name))
    if (!disk) return
    const reason = typeof data?.reason === 'string' ? data.reason : 'unknown error'
    const last: DiskError = {
      disk: disk.name,
      code: data?.nospace === true ? 'DISK_FULL' : 'DISK_FAILED',
      what: `${data?.operation === 'read' ? 'read' : 'write'}: ${reason}`,
      stops: data?.action === 'stop',
    }
    const before = this.#seen.get(disk.name)
    this.#seen.set(disk.name, { count: (before?.count ?? 0) + 1, last })
    if (before?.last.what !== last.what) this.emit('failed', last)
  }
}
