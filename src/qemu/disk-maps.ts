/**
 * The maps of a guest's disks on this host (disk/chunk-map.ts): `disks/NAME.ID/DISK.map` in the state directory, beside the disks that
 * subpage makes. Of a raw file that QEMU writes by threads the shim marks it. Of others the shim does not see the writes, or sees them at
 * other places than the guest's: bitmap-map.ts says how those are marked, and that they are of one QEMU only.
 */
import { mkdirSync, rmdirSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { ChunkMap } from '../disk/chunk-map.ts'
import type { Disk } from './disk.ts'
import { wayOf } from './disk-export.ts'
import { type DiskOwner, journalPath, ownDiskPath } from './disk-places.ts'
import type { GuestFiles } from './guest-files.ts'
import type { GuestRecord } from './guest-record.ts'
import { bootId, untilGone } from './process.ts'

const mapPath = (files: GuestFiles, owner: DiskOwner, { name }: Disk): string =>
  ownDiskPath(files, owner, name).replace(/\.raw$/, '.map')

/** Who notes what is written: the shim, or QEMU's bitmaps and the endpoint (bitmap-map.ts). Undefined: nobody, the disk has no map. */
export function markedBy(disk: Disk): 'shim' | 'bitmap' | undefined {
  // What a map says is read, too.
  if (wayOf(disk) === 'none') return undefined
  const file = statSync(disk.path, { throwIfNoEntry: false })?.isFile() ?? false
  // Where somebody else starts QEMU (`device`) its shim was not told which files are disks.
  if (file && disk.device === undefined && disk.format === 'raw' && (disk.aio ?? 'threads') === 'threads')
    return 'shim'
  // It is asked over QEMU's NBD server, which a disk with a thread of its own must not meet (disk-export.ts).
  return disk.iothread === true ? undefined : 'bitmap'
}

/**
 * Before QEMU starts.
 * @param waiting as a standby: what a disk's map says of what it was before stays
 * @returns paths, for the shim
 * @throws SubpageError NO_SPACE; the file system's own error
 */
export async function prepareMaps(
  files: GuestFiles,
  owner: DiskOwner,
  disks: readonly Disk[],
  waiting: boolean,
): Promise<string[]> {
  const paths: string[] = []
  for (const disk of disks) {
    const path = mapPath(files, owner, disk)
    // One of an earlier form of the disk.
    const by = markedBy(disk)
    if (!by) {
      rmSync(path, { force: true })
      continue
    }
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    const keep = waiting && by === 'shim'
    await ChunkMap.prepare(path, { ...disk, guest: owner.id, bootId: bootId() }, keep)
    if (by === 'shim') paths.push(path)
  }
  return paths
}

/** The guest is not coming back to this host, or its disks are gone. */
export function removeMaps(files: GuestFiles, owner: DiskOwner, disks: readonly Disk[]): void {
  const [first] = disks
  if (!first) return
  for (const disk of disks) rmSync(mapPath(files, owner, disk), { force: true })
  try {
    rmdirSync(dirname(mapPath(files, owner, first)))
  } catch {
    // A disk is in it, or it is gone already.
  }
}

export class DiskMaps {
  readonly #files: GuestFiles
  readonly #record: GuestRecord
  readonly #maps: (ChunkMap | undefined)[]

  private constructor(files: GuestFiles, record: GuestRecord, maps: (ChunkMap | undefined)[]) {
    this.#files = files
    this.#record = record
    this.#maps = maps
  }

  /** Of a guest whose QEMU runs, or waits. */
  static open(files: GuestFiles, record: GuestRecord): DiskMaps {
    const { machine, process } = record
    const maps = machine.disks.map((disk) => {
      const by = markedBy(disk)
      return by && ChunkMap.open(mapPath(files, record, disk), process.pid, by === 'bitmap')
    })
    return new DiskMaps(files, record, maps)
  }

  /** In the order of the disks; undefined: it has none. */
  get all(): readonly (ChunkMap | undefined)[] {
    return this.#maps
  }

  /** Where this host keeps what it has of the disks, beside those that it made. */
  get directory(): string {
    return dirname(journalPath(this.#files, this.#record))
  }

  /** The guest begins to run here. */
  unsettle(): void {
    for (const [index, map] of this.#maps.entries()) {
      map?.unsettle()
      // Nothing has noted yet what it writes from here on.
      if (this.#by(index) === 'bitmap') map?.forget()
    }
  }

  /** The guest has ended here and may go on elsewhere: what it was on the disks then is what the maps belong to. */
  async settle(): Promise<void> {
    const { machine, process } = this.#record
    await untilGone(process)
    for (const [index, map] of this.#maps.entries()) {
      const found = statSync(machine.disks[index]!.path, { bigint: true, throwIfNoEntry: false })
      if (map && found && this.#by(index) === 'shim') map.settle(found.mtimeNs)
    }
  }

  #by(index: number): ReturnType<typeof markedBy> {
    return markedBy(this.#record.machine.disks[index]!)
  }

  remove(): void {
    removeMaps(this.#files, this.#record, this.#record.machine.disks)
  }

  close(): void {
    for (const map of this.#maps) map?.close()
  }
}
