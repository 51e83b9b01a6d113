/**
 * Guests whose machines libvirt manages: how they are found here, how their standby begins on this host, and what libvirt is told
 * of them.
 */
import { randomUUID } from 'node:crypto'
import { dirname } from 'node:path'
import {
  defaultDirectory,
  domainFiles,
  holdDomain,
  isHeld,
  releaseDomain,
} from '../../libvirt/domain-files.ts'
import { commandedEnd, findDomain } from '../../libvirt/domain-guest.ts'
import { noteInDomain } from '../../libvirt/domain-notice.ts'
import { domainStarter, keepDomain } from '../../libvirt/domain-starter.ts'
import { loadDomainXml } from '../../libvirt/domain-xml.ts'
import { connectVirsh, defaultConnection } from '../../libvirt/virsh.ts'
import { adopt, refit } from '../../qemu/adoption.ts'
import type { GuestFiles } from '../../qemu/guest-files.ts'
import type { GuestRecord } from '../../qemu/guest-record.ts'
import type { Starter } from '../../qemu/launch.ts'
import type { HostPlaces } from '../../qemu/machine-description.ts'
import { QemuProcess } from '../../qemu/qemu-process.ts'
import type { GuestDescription, GuestEnd } from '../../replication/guest.ts'
import type { Host } from './host.ts'
import type { GuestProcess } from './hypervisor.ts'

type ManagedProcess = Pick<GuestProcess, 'record' | 'files'>

const libvirt = () => connectVirsh(defaultConnection)

/** What starts the QEMU of a standby; undefined: subpage itself. @param primary the host that it comes from, for people */
export function starterOf(
  { hypervisor }: GuestDescription,
  images: HostPlaces['images'],
  primary: string,
): Starter | undefined {
  return hypervisor.managed === undefined
    ? undefined
    : domainStarter(libvirt(), defaultDirectory, images, primary)
}

/** Takes up a domain that runs here. @throws SubpageError as findDomain() and adopt() do */
export async function adoptManaged(name: string, files: GuestFiles, { places }: Host): Promise<QemuProcess> {
  const found = await findDomain(libvirt(), name, places.images)
  const identity = { id: randomUUID(), name, generation: 1 }
  return new QemuProcess(files, await adopt(identity, found.machine, files, found.files, found.process))
}

/** Before it is protected: as it is now. @throws SubpageError as findDomain() and refit() do; why the signal was aborted */
export async function refitManaged(
  qemu: QemuProcess,
  images: HostPlaces['images'],
  signal: AbortSignal,
): Promise<void> {
  const { record, files } = qemu
  const { name, machine } = record
  if (!machine.managed) return
  const found = (await findDomain(libvirt(), name, images)).machine
  // Of one that is held we have switched that off ourselves.
  const autostart = isHeld(placesOf(record, files)) ? machine.managed.autostart : found.managed!.autostart
  await refit(qemu, { ...found, managed: { ...found.managed!, autostart } }, signal)
}

/** It is not protected any more, and its disks are its manager's: what people do with them must not meet anything of ours. */
export async function leaveManaged({ record, devices }: QemuProcess): Promise<void> {
  if (record.machine.managed) await devices.disks.leave()
}

/** A guest runs on this host. @returns what the operator should know */
export async function keepManaged({ name, machine }: GuestRecord): Promise<string | undefined> {
  if (!machine.managed) return undefined
  const { disks, firmware } = machine
  const left = await keepDomain(libvirt(), { name, disks, ...(firmware && { firmware }) })
  const has = [...disks.map(({ path }) => path), ...(firmware ? [firmware.nvram] : [])]
  return left.length > 0
    ? `its disks are ${has.join(', ')} now; it does not use ${left.join(', ')} any more`
    : undefined
}

/** A guest runs here, and this is its supervisor: for what libvirt is asked later. */
export function meetManaged(qemu: Pick<GuestProcess, 'record' | 'explainEnd'>): void {
  if (!qemu.record.machine.managed) return
  loadDomainXml()
  qemu.explainEnd = (end) => endOfManaged(qemu.record, end)
}

/** Whether somebody has ended it through libvirt. @param end what QEMU said */
async function endOfManaged({ name }: GuestRecord, end: GuestEnd): Promise<GuestEnd> {
  const detail = await commandedEnd(libvirt(), name)
  return detail === undefined ? end : { how: 'stopped', detail }
}

/** While it is protected nobody but subpage starts it: its copy may run on the other host. */
export async function holdManaged({ record, files }: ManagedProcess, to: string): Promise<void> {
  if (!record.machine.managed) return
  const why = `${record.name} is protected to ${to}, and may run there`
  holdDomain(placesOf(record, files), why)
  await noteInDomain(libvirt(), record.name, why)
  await autostart(record, false)
}

/** It is as it was before it was protected. */
export async function releaseManaged({ record, files }: ManagedProcess): Promise<void> {
  if (!record.machine.managed) return
  releaseDomain(placesOf(record, files))
  await noteInDomain(libvirt(), record.name, undefined)
  await autostart(record, true)
}

/** Its files have names of ours, which lead to them. */
const placesOf = ({ name }: GuestRecord, { lease }: GuestFiles) => domainFiles(dirname(dirname(lease)), name)

async function autostart({ name, machine }: GuestRecord, allowed: boolean): Promise<void> {
  if (machine.managed?.autostart)
    await libvirt().run('autostart', ...(allowed ? [] : ['--disable']), '--domain', name)
}
