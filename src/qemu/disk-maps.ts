/**
 * The maps of a guest's disks on this host (disk/chunk-map.ts): `disks/NAME.ID/DISK.map` in the state directory, beside the disks that
 * subpage makes. Only a raw file that QEMU writes by threads has one: of others the shim does not see the writes, or sees them at
 * other places than the guest's.
 */
import { mkdirSync, rmdirSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { ChunkMap } from '../disk/chunk-map.ts'
import type { Disk } from './disk.ts'
import { wayOf } from './disk-export.ts'
import { type DiskOwner, ownDiskPath } from './disk-places.ts'
import type { GuestFiles } from './guest-files.ts'
import type { GuestRecord } from './guest-record.ts'
import { bootId, untilGone } from './process.ts'

const mapPath = (files: GuestFiles, owner: DiskOwner, { name }: Disk): string =>
  ownDiskPath(files, owner, name).replace(/\.raw$/, '.map')

const isMapped = (disk: Disk): boolean =>
  disk.format === 'raw' &&
  (disk.aio ?? 'threads') === 'threads' &&
  // What a map says is read, too.
  wayOf(disk) !== 'none' &&
  (statSync(disk.path, { throwIfNoEntry: false })?.isFile() ?? false)

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
    if (!isMapped(disk)) {
      rmSync(path, { force: true })
      continue
    }
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    await ChunkMap.prepare(path, { ...disk, guest: owner.id, bootId: bootId() }, waiting)
    paths.push(path)
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
    const maps = machine.disks.map((disk) =>
      isMapped(disk) ? ChunkMap.open(mapPath(files, record, disk), process.pid) : undefined,
    )
    return new DiskMaps(files, record, maps)
  }

  /** In the order of the disks; undefined: it has none. */
  get all(): readonly (ChunkMap | undefined)[] {
    return this.#maps
  }

  /** The guest begins to run here. */
  unsettle(): void {
    for (const map of this.#maps) map?.unsettle()
  }

  /** The guest has ended here and may go on elsewhere: what it was on the disks then is what the maps belong to. */
  async settle(): Promise<void> {
    const { machine, process } = this.#record
    await untilGone(process)
    for (const [index, map] of this.#maps.entries()) {
      const found = statSync(machine.disks[index]!.path, { bigint: true, throwIfNoEntry: false })
      if (map && found) map.settle(found.mtimeNs)
    }
  }

  remove(): void {
    removeMaps(this.#files, this.#record, this.#record.machine.disks)
  }

  close(): void {
    for (const map of this.#maps) map?.close()
  }
}
