/**
 * What two hosts know of how their disks differ, so that bringing one up to the other costs what was changed and not what there is.
 * Each host has a map of the chunks that its guest has written to a disk (disk/chunk-map.ts). Two whose disks came to be equal get one
 * lineage, a random name. As long as both have it, the disks differ at most in what either map has marked:
 *
 *   a write of the guest    is marked before it is made
 *   a write of the standby  is of what the primary has marked, and still has
 *   a mark of the primary   goes when the standby has applied what was written before; that it has says its answer to the checkpoint
 *                           after that, which it looks at only then
 *   a mark of the standby   goes when the first checkpoint is applied after it was told to the primary
 *
 * Whoever is written to without a common lineage forgets its own first, and the primary its marks. A new one is the primary's and the standby's when the first
 * checkpoint is applied, of which each hears for itself: until both have it, they compare hashes.
 */
import { randomBytes } from 'node:crypto'
import type { Clock } from './clock.ts'
import type { CopyKnowledge, DiskImage, WrittenChunks } from './disks.ts'
import { brokeProtocol } from './messages.ts'
import type { PrimarySession } from './primary-session.ts'

type Maps = readonly (WrittenChunks | undefined)[]

const lineageBytes = 16
/** So often marks are made apart: what is looked at after a cut is what was written since, and in twice this time before. */
const partMs = 500

/** What a primary asks of its standby. */
export type LineageSession = Pick<PrimarySession, 'welcome' | 'diskHashes' | 'diskChanges' | 'renewLineage'>

/** The primary's. */
export class DiskLineages {
  readonly #maps: Maps
  readonly #clock: Clock
  /** Of the disks, when the standby has applied the first checkpoint of the connection. */
  #renewed: (string | undefined)[] = []
  /** Last checkpoint of the connection that the standby has acknowledged. */
  #acknowledged: number | undefined
  /** What was marked apart is of this epoch and those before; undefined: of the next one. */
  #parted: number | undefined
  #partedAt = Number.NEGATIVE_INFINITY

  constructor(maps: Maps, clock: Clock) {
    this.#maps = maps
    this.#clock = clock
  }

  get told(): string[] {
    return this.#maps.map((map) => map?.lineage ?? '')
  }

  /** A connection begins. @returns what of each disk the standby's copy may lack */
  async agree(session: LineageSession, sizes: readonly number[]): Promise<CopyKnowledge[]> {
    this.#acknowledged = undefined
    this.#renewed = []
    const known: CopyKnowledge[] = []
    for (const [disk, bytes] of sizes.entries()) {
      const map = this.#maps[disk]
      const theirs = session.welcome.disks[disk]?.lineage
      if (map && theirs !== '' && theirs === map.lineage) {
        known.push({ changed: await session.diskChanges(disk, bytes) })
        continue
      }
      map?.forget()
      // All is compared: what is on its way now is written before that begins.
      map?.clear()
      if (map && theirs !== undefined) {
        const lineage = randomBytes(lineageBytes)
        this.#renewed[disk] = lineage.toString('hex')
        await session.renewLineage(disk, lineage)
      }
      known.push({ hashes: await session.diskHashes(disk, bytes) })
    }
    return known
  }

  /** The guest stands still for a checkpoint. */
  held(epoch: number): void {
    if (this.#parted !== undefined) return
    const due = this.#clock.now() - this.#partedAt >= partMs
    if (!due && this.#maps.every((map) => !map?.parted)) return
    for (const map of this.#maps) map?.part()
    this.#parted = epoch
    this.#partedAt = this.#clock.now()
  }

  /** It did not, to the end. */
  broken(epoch: number): void {
    if (this.#parted === epoch) this.#parted = undefined
  }

  /** The standby has the checkpoint, and has applied the one before it. */
  acknowledged(epoch: number): void {
    const applied = this.#acknowledged
    this.#acknowledged = epoch
    if (applied === undefined) return
    for (const [disk, lineage] of this.#renewed.entries())
      if (lineage !== undefined) this.#maps[disk]?.inherit(lineage)
    this.#renewed = []
    if (this.#parted === undefined || applied < this.#parted) return
    for (const map of this.#maps) map?.dropParted()
    this.#parted = undefined
  }

  /** The copies are not what they should be. */
  forget(): void {
    this.#renewed = []
    for (const map of this.#maps) map?.forget()
  }
}

/** The standby's. */
export class CopyLineages {
  readonly #disks: readonly DiskImage[]
  #renewed: (string | undefined)[] = []
  #asked: boolean[] = []
  #first = true

  constructor(disks: readonly DiskImage[]) {
    this.#disks = disks
  }

  /** A connection begins. @param told lineages of the primary's disks; undefined: it knows of none */
  begin(told: readonly string[] | undefined): void {
    this.#renewed = []
    this.#asked = []
    this.#first = true
    for (const [disk, { map }] of this.#disks.entries())
      if (map && map.lineage !== (told?.[disk] ?? '')) map.forget()
  }

  /** Bits of the chunks that the guest has written here, when it ran here. @throws SubpageError FRAME_MALFORMED */
  changes(disk: number): Uint8Array {
    const map = this.#mapOf(disk)
    this.#asked[disk] = true
    return map.marked()
  }

  /** @throws SubpageError FRAME_MALFORMED */
  renew(disk: number, lineage: Uint8Array): void {
    if (lineage.length !== lineageBytes) throw brokeProtocol(`a lineage of ${lineage.length} bytes`)
    this.#mapOf(disk).forget()
    this.#renewed[disk] = Buffer.from(lineage).toString('hex')
  }

  #mapOf(disk: number): WrittenChunks {
    const map = this.#disks[disk]?.map
    if (!map) throw brokeProtocol(`it speaks of the map of disk ${disk}, which has none`)
    return map
  }

  /** A checkpoint is applied. */
  applied(): void {
    if (!this.#first) return
    this.#first = false
    for (const [disk, { map }] of this.#disks.entries()) {
      const lineage = this.#renewed[disk]
      if (lineage === undefined && !this.#asked[disk]) continue
      map?.clear()
      if (lineage !== undefined) map?.inherit(lineage)
    }
  }
}
