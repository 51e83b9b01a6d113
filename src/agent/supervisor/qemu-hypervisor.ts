/** QEMU, as a supervisor meets it: its processes and their files on this host. */
import { rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { RawDisk } from '../../disk/raw-disk.ts'
import { playBack, RedoJournal } from '../../disk/redo-journal.ts'
import { SpillFile } from '../../disk/spill-file.ts'
import { journalPath } from '../../qemu/disk-places.ts'
import { readRecord } from '../../qemu/guest-record.ts'
import { lastWords } from '../../qemu/launch.ts'
import { endLeftover } from '../../qemu/leftover.ts'
import { type HostPlaces, withPlaces } from '../../qemu/machine-description.ts'
import { isGone } from '../../qemu/process.ts'
import { QemuGuest } from '../../qemu/qemu-guest.ts'
import { QemuProcess } from '../../qemu/qemu-process.ts'
import { WaitingQemu } from '../../qemu/waiting-qemu.ts'
import type { Hypervisor, StandbyStorage } from './hypervisor.ts'
import { leaveManaged, refitManaged, starterOf } from './managed-guest.ts'

export function qemuHypervisor(places: HostPlaces): Hypervisor {
  return {
    guestOf: (qemu) => new QemuGuest(qemu),
    startWaiting: ({ guest, generation, source }, files) =>
      WaitingQemu.start(guest, generation, files, places, starterOf(guest, places.images, source.host)),
    refit: (qemu, signal) => refitManaged(qemu, places.images, signal),
    leave: leaveManaged,
    withPlaces,
    storageOf,
    readRecord,
    attach: (files, record, doing) => QemuProcess.attach(files, record, doing),
    isGone: ({ process }) => isGone(process),
    endLeftover,
    playBack: (files, record) => playBack(journalPath(files, record), record.machine.disks),
    freeMemory: ({ ram }) => rmSync(ram, { force: true }),
    lastWords,
  }
}

function storageOf(qemu: QemuProcess): StandbyStorage {
  const disks = openDisks(qemu)
  const journal = journalPath(qemu.files, qemu.record)
  const spill = new SpillFile(dirname(journal))
  return {
    disks,
    spill,
    journal: new RedoJournal(journal, disks),
    close: () => Promise.all([...disks.map((disk) => disk.close()), spill.close()]),
  }
}

/** @throws SubpageError DISK_UNUSABLE, the file system's own error; none is left open then */
function openDisks({ record, devices: { maps } }: QemuProcess): RawDisk[] {
  const opened: RawDisk[] = []
  try {
    for (const [index, { path, bytes, made = false }] of record.machine.disks.entries())
      opened.push(new RawDisk(path, bytes, made, maps.all[index]))
    return opened
  } catch (error) {
    // It has been used for nothing yet, so it is closed at once.
    for (const disk of opened) disk.close().catch(() => undefined)
    throw error
  }
}
