/** Several disks over one connection. */
import { expect, test } from 'vitest'
import { realClock } from '../../src/replication/clock.ts'
import { DiskLineages } from '../../src/replication/disk-lineages.ts'
import { DiskSender } from '../../src/replication/disk-sender.ts'
import { noTraffic } from '../../src/replication/disk-traffic.ts'
import { ScriptedDisks, scriptedDiskBytes } from './scripted-disk.ts'

const recordBytes = 512

/** The guest writes to the first without a pause; of the others so many records are left to be copied. */
class BusyFirst extends ScriptedDisks {
  override readonly sizes = [scriptedDiskBytes, scriptedDiskBytes, scriptedDiskBytes]
  readonly left = [Number.POSITIVE_INFINITY, 5, 8]
  override get complete(): boolean {
    return this.left[1] === 0 && this.left[2] === 0
  }
  override take(disk: number): number {
    if (this.left[disk] === 0) return 0
    this.left[disk]!--
    return recordBytes
  }
}

test('a disk that is written without a pause does not keep the others from being copied', async () => {
  const disks = new BusyFirst()
  const sent: number[] = []
  const enough = new AbortController()
  const sink = {
    send: async (_type: number, _epoch?: number, payload?: Uint8Array) => {
      if (sent.push(Buffer.from(payload!).readUInt32LE()) === 100) enough.abort()
    },
  }
  const reducer = { writes: async () => undefined, writesNow: () => undefined, busy: false }
  const traffic = disks.sizes.map(noTraffic)
  const sender = new DiskSender(disks, sink, reducer, realClock, traffic, new DiskLineages([], realClock))
  await sender.seed(enough.signal, async () => undefined)
  const copied = (disk: number) => sent.filter((one) => one === disk).length
  expect([copied(1), copied(2)]).toEqual([5, 8])
  expect(copied(0)).toBeLessThanOrEqual(9)
})
