/**
 * A guest and its active slave (Lu and Chiueh, DSN 2009), both live: the slave begins each epoch as the guest's last checkpoint
 * and runs on as it likes, its outputs dropped. At the epoch's end it is corrected to the guest's checkpoint exactly, which is
 * checked over the whole memory and by the state of the devices.
 *
 * The two run one after the other, each for the same time, so that neither takes the processor from the other: on two hosts
 * neither would.
 */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { applySync } from 'subpage/delta/apply'
import { SubpageError } from 'subpage/errors'
import { compareRegions, hashBlocks, hashBytes } from 'subpage/memory/hash'
import { pageBytes } from 'subpage/memory/page'
import { PageRanges } from 'subpage/memory/page-ranges'
import { Region } from 'subpage/memory/region'
import { openTracker, type Tracker } from 'subpage/tracking/tracker'
import { readPages, writePages } from '../../pages.ts'
import type { StudyGuest } from '../../study-guest.ts'
import { leaveOutMemory, loadDevices, saveDevices } from './device-snapshots.ts'
import type { SlaveNetwork } from './network.ts'

const copyPages = 256
const triesMax = 10

/** How one of the two ran. Microseconds. */
export interface Ran {
  /** Without the time in which others had this host's processors. */
  ranUs: number
  processorUs: number
}

/** What else happens while one of them runs. */
export interface Meanwhile {
  begin(): unknown
  end(): unknown
}

/** What both have done in an epoch; they stand still. */
interface Diverged {
  primary: Ran & { dirty: PageRanges }
  slave: Ran & { dirty: PageRanges }
  /** Of the primary's dirty pages, those whose hash the slave has, too. */
  equal: PageRanges
}

export class SlavePair implements AsyncDisposable {
  readonly primary: StudyGuest
  readonly slave: StudyGuest
  /** The last checkpoint, as the slave's host keeps it of what the slave writes. */
  readonly #committed: Region
  readonly #trackers: { primary: Tracker; slave: Tracker }
  readonly #snapshot: string
  readonly #network: SlaveNetwork | undefined

  private constructor(primary: StudyGuest, slave: StudyGuest, network: SlaveNetwork | undefined) {
    this.primary = primary
    this.slave = slave
    this.#network = network
    this.#snapshot = join(primary.directory, 'devices.qcow2')
    this.#committed = Region.anonymous(primary.qemu.ram.bytes)
    this.#trackers = { primary: trackerOf(primary), slave: trackerOf(slave) }
  }

  /**
   * Both stand still then, and the slave is what the guest is.
   * @param slave of the same machine; what it does by itself is lost
   * @param network to which both belong
   */
  static async open(primary: StudyGuest, slave: StudyGuest, network?: SlaveNetwork): Promise<SlavePair> {
    await Promise.all([leaveOutMemory(primary.qemu.qmp), leaveOutMemory(slave.qemu.qmp)])
    const pair = new SlavePair(primary, slave, network)
    try {
      await pair.#begin()
    } catch (error) {
      await pair[Symbol.asyncDispose]()
      throw error
    }
    return pair
  }

  /** Both run from the checkpoint on, and stand still then. */
  async diverge(epochMs: number): Promise<Diverged> {
    const primary = await run(this.primary, epochMs, this.#network?.ofGuest(this.primary.qemu.qmp))
    const slave = await run(this.slave, epochMs, this.#network?.replay())
    const dirty = this.#trackers.primary.harvest()
    return {
      primary: { ...primary, dirty },
      slave: { ...slave, dirty: this.#trackers.slave.harvest() },
      equal: await this.#equal(dirty),
    }
  }

  /** Makes the slave what the guest is: a checkpoint. @throws SubpageError INTERNAL when it is not that then */
  async correct({ primary, slave, equal }: Diverged, deltas: readonly Uint8Array[]): Promise<void> {
    const { ram } = this.slave.qemu
    const wrong = slave.dirty.subtract(equal)
    writePages(ram, wrong, readPages(this.#committed, wrong))
    for (const delta of deltas) applySync(ram, delta)
    const changed = primary.dirty.union(slave.dirty)
    writePages(this.#committed, changed, readPages(ram, changed))
    await this.#beginAlike()
  }

  /** The memory of the last checkpoint. */
  get committed(): Region {
    return this.#committed
  }

  /** The guest runs on alone. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#trackers.primary.close()
    this.#trackers.slave.close()
    this.#committed.close()
    await this.primary.go()
    await this.#network?.ofGuest(this.primary.qemu.qmp).begin()
  }

  async #begin(): Promise<void> {
    await this.#network?.hold(this.primary.qemu.qmp)
    await Promise.all([this.primary.stop(), this.slave.stop()])
    // The first names every page.
    for (const tracker of Object.values(this.#trackers)) tracker.harvest()
    const [from, to] = [this.primary.qemu.ram, this.slave.qemu.ram]
    for (let page = 0; page < from.pages; page += copyPages) {
      const piece = from.read(page * pageBytes, Math.min(copyPages, from.pages - page) * pageBytes)
      to.write(page * pageBytes, piece)
      this.#committed.write(page * pageBytes, piece)
    }
    await this.#beginAlike()
  }

  /** 64 bits of hash for each page, as they are sent. */
  async #equal(dirty: PageRanges): Promise<PageRanges> {
    const [ours, theirs] = await Promise.all(
      [this.primary, this.slave].map(async ({ qemu }) => {
        const { buffer } = await hashBlocks(qemu.ram, dirty, pageBytes)
        return new BigUint64Array(buffer)
      }),
    )
    const words = hashBytes / BigUint64Array.BYTES_PER_ELEMENT
    const equal: [number, number][] = []
    let at = 0
    for (const page of dirty.pages()) {
      if (ours![at] === theirs![at]) equal.push([page, 1])
      at += words
    }
    return PageRanges.of(equal)
  }

  /**
   * The slave is the checkpoint, or this throws. The guest loads its own devices as well, for under TCG whoever has done so begins
   * by translating all code anew: the slave alone would fall behind, as it would not under KVM.
   */
  async #beginAlike(): Promise<void> {
    // What clients send meanwhile is in the state of the guest's user network, which stands still only when they do.
    for (let tries = 0; tries < triesMax; tries++) if (await this.#loadBoth()) return
    throw new SubpageError('INTERNAL', 'devices of the guest or of its slave are not those of the checkpoint')
  }

  /** @returns whether both have the same state then. @throws SubpageError INTERNAL when their memory differs */
  async #loadBoth(): Promise<boolean> {
    await saveDevices(this.primary.qemu.qmp, this.#snapshot)
    const saved = await stateOf(this.primary)
    // Its memory is that of the checkpoint: a card looks at its rings there.
    if (!(await this.#load(this.slave, saved))) return false
    const [ours, theirs] = [this.primary.qemu.ram, this.slave.qemu.ram]
    const differs = await compareRegions(ours, theirs, PageRanges.all(ours.pages))
    if (differs)
      throw new SubpageError('INTERNAL', `page ${differs.page} of the slave is not that of the checkpoint`)
    // What has come since would be lost.
    return saved.equals(await stateOf(this.primary)) && (await this.#load(this.primary, saved))
  }

  /** @returns whether its devices then are as they were saved */
  async #load(guest: StudyGuest, saved: Buffer): Promise<boolean> {
    await loadDevices(guest.qemu.qmp, this.#snapshot)
    this.#undoReset(guest, guest === this.primary ? this.#trackers.primary : this.#trackers.slave)
    return saved.equals(await stateOf(guest))
  }

  /** A load resets the machine first, which writes, too. */
  #undoReset({ qemu: { ram } }: StudyGuest, tracker: Tracker): void {
    const written = tracker.harvest()
    writePages(ram, written, readPages(this.#committed, written))
  }
}

async function stateOf({ qemu: { qmp, deviceState } }: StudyGuest): Promise<Buffer> {
  await qmp.run('xen-save-devices-state', { filename: deviceState.pathInQemu, live: false })
  return deviceState.read()
}

function trackerOf({ qemu: { files, record, ram, ramPath } }: StudyGuest): Tracker {
  return openTracker(
    { pid: record.process.pid, ramPath, ramPages: ram.pages, shimStatusPath: files.shimStatus },
    'userfault',
  )
}

/** Time in which others have this host's processors is not the guest's: it is as long on a busy host as on a quiet one. */
async function run(guest: StudyGuest, ms: number, meanwhile?: Meanwhile): Promise<Ran> {
  const [processorNs, deprivedNs] = [guest.processorNs(), guest.deprivedNs()]
  await guest.go()
  const startedAt = performance.now()
  await meanwhile?.begin()
  const leftMs = () => ms - (performance.now() - startedAt) + (guest.deprivedNs() - deprivedNs) / 1e6
  for (let left = ms; left > 0; left = leftMs()) await delay(left)
  await meanwhile?.end()
  await guest.stop()
  return {
    ranUs: 1000 * (ms - leftMs()),
    processorUs: (guest.processorNs() - processorNs) / 1000,
  }
}
