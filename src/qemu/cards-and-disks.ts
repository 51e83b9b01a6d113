/** What is kept of a QEMU for each of its network cards and disks. Where somebody else manages the machine, these may change. */

import type { Region } from '../memory/region.ts'
import { DiskMaps } from './disk-maps.ts'
import { DiskMirrors } from './disk-mirror.ts'
import type { Fence } from './fence.ts'
import { FlushAhead } from './flush-ahead.ts'
import type { GuestFiles } from './guest-files.ts'
import type { GuestRecord } from './guest-record.ts'
import { netdevIds } from './nic.ts'
import { OutputBuffers } from './output-buffers.ts'
import { OutputWatch } from './output-watch.ts'
import type { PauseLease } from './pause-lease.ts'
import type { Qmp } from './qmp.ts'

interface Parts {
  qmp: Qmp
  ram: Region
  /** By which its memory can be opened, now. */
  ramPath: string
  record: GuestRecord
  files: GuestFiles
  lease: PauseLease
  fence: Fence
}

export class CardsAndDisks {
  readonly outputs: OutputBuffers
  readonly outputWatch: OutputWatch
  readonly maps: DiskMaps
  readonly disks: DiskMirrors
  readonly flushAhead: FlushAhead

  /** @param qemu as it is: what its record says of its machine, and what changes */
  constructor(qemu: Readonly<Parts>) {
    const { qmp, ram, record, files, lease, fence } = qemu
    const { machine, process } = record
    const netdevs = netdevIds(machine)
    this.outputs = new OutputBuffers(qmp, netdevs.length, fence)
    this.outputWatch = new OutputWatch(qmp, netdevs, ram, { pid: process.pid, path: () => qemu.ramPath })
    this.maps = DiskMaps.open(files, record)
    this.disks = new DiskMirrors({ qmp, files, disks: machine.disks, lease, maps: this.maps })
    this.flushAhead = new FlushAhead({
      paths: machine.disks.map(({ path }) => path),
      writes: () => this.disks.writes,
    })
  }

  /** @param mapsLeft resolves when the maps are as the guest has left them */
  close(mapsLeft: Promise<void> = Promise.resolve()): void {
    this.disks.close()
    this.flushAhead.close()
    void mapsLeft.then(() => this.maps.close())
  }
}
