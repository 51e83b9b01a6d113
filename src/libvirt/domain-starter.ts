/**
 * The standby as a domain of this host's libvirt: defined here if it is not yet, and started so that it waits for its state. Libvirt
 * shows it as paused until the takeover, and as running then.
 */
import { randomUUID } from 'node:crypto'
import { SubpageError } from '../errors.ts'
import { linkFiles } from '../qemu/adoption.ts'
import { DeviceStateFile } from '../qemu/device-state-file.ts'
import type { Disk } from '../qemu/disk.ts'
import type { Firmware } from '../qemu/firmware.ts'
import type { Starter } from '../qemu/launch.ts'
import { identify } from '../qemu/process.ts'
import { readShimStatus } from '../tracking/shim.ts'
import { define, start } from './definition.ts'
import { assertAdmissible } from './domain-admission.ts'
import { disksOf, withPlaces } from './domain-disks.ts'
import { disksDirectory, domainFiles, giveDisks, holdDomain, makeFiles, removeFiles } from './domain-files.ts'
import { withFirmware } from './domain-firmware.ts'
import { emulatorOf } from './domain-guest.ts'
import { withNotice } from './domain-notice.ts'
import { formatDomain, parseDomain, rootOf, textAt } from './domain-xml.ts'
import { baseOf, hasMark, marked, prepared, unmarked, waiting } from './preparation.ts'
import type { Virsh } from './virsh.ts'

/**
 * @param base directory of the files of all domains
 * @param images directories that guests may read from
 * @param primary the host where the guest runs, for people
 */
export function domainStarter(
  virsh: Virsh,
  base: string,
  images: readonly string[],
  primary: string,
): Starter {
  return {
    disks: disksDirectory,
    start: async (name, { managed, disks, firmware }, files) => {
      const document = parseDomain(managed?.description ?? '')
      if (textAt(rootOf(document), 'name') !== name)
        throw new SubpageError('PEER_MISMATCH', `the primary describes another domain than ${name}`)
      assertAdmissible(document, { images, emulator: await emulatorOf(virsh) })
      await refuseOther(virsh, name, textAt(rootOf(document), 'uuid'))
      // What the host has of it already stays: it may be the one that its people have made. What an earlier standby has left does not.
      const own = await definitionOf(virsh, name)
      const there = domainFiles((own && baseOf(parseDomain(own))) ?? base, name)
      await makeFiles(virsh, there)
      await giveDisks(virsh, placesMade(disks, firmware))
      const xml = prepared(formatDomain(withFirmware(withPlaces(document, disks), firmware)), there)
      const kept = own === undefined || hasMark(own) ? marked(xml) : own
      const why = `${name} is a standby here: its guest runs on ${primary}`
      await define(virsh, withNotice(kept, why))
      await virsh.run('autostart', '--disable', '--domain', name)
      holdDomain(there, why)
      await start(virsh, waiting(xml))
      const pid = readShimStatus(there.shimStatus)?.pid
      const started = pid === undefined ? undefined : identify(pid)
      if (!started)
        throw new SubpageError('QEMU_FAILED', `the QEMU of the domain ${name} has not loaded the shim`)
      linkFiles(files, there)
      const deviceState = DeviceStateFile.of(started.pid, there.directory)
      return { started, deviceState, incoming: `${there.directory}/${randomUUID().slice(0, 8)}.sock` }
    },
    forget: async (name) => {
      const xml = await definitionOf(virsh, name)
      if (xml === undefined || !hasMark(xml)) return
      // The variables of its firmware are a file of ours, as the copies of its disks are.
      await virsh.run('undefine', '--keep-nvram', '--domain', name)
      removeFiles(domainFiles(base, name))
    },
  }
}

interface KeptDomain {
  name: string
  disks: readonly Disk[]
  firmware?: Firmware
}

const placesMade = (disks: readonly Disk[], firmware: Firmware | undefined): string[] => [
  ...disks.filter(({ made }) => made).map(({ path }) => path),
  ...(firmware?.made ? [firmware.nvram] : []),
]

/**
 * The guest runs here now: the domain is like any other, and is started with the disks that the guest has now.
 * @returns files that it had before, and has no more
 */
export async function keepDomain(virsh: Virsh, { name, disks, firmware }: KeptDomain): Promise<string[]> {
  const xml = await definitionOf(virsh, name)
  if (xml === undefined) return []
  const own = withNotice(hasMark(xml) ? unmarked(xml) : xml, undefined)
  const before = disksOf(parseDomain(xml))
  const nvram = textAt(rootOf(parseDomain(xml)), 'os/nvram')
  const left = [...before.map(({ path }) => path), ...(nvram === '' ? [] : [nvram])].filter(
    (path) => path !== firmware?.nvram && !disks.some((disk) => disk.path === path),
  )
  const moved = left.length > 0 || before.length !== disks.length
  if (moved || own !== xml)
    await define(
      virsh,
      moved ? formatDomain(withFirmware(withPlaces(parseDomain(own), disks), firmware)) : own,
    )
  return left
}

/** Undefined: libvirt has none of the name. */
async function definitionOf(virsh: Virsh, name: string): Promise<string | undefined> {
  try {
    return await virsh.run('dumpxml', '--inactive', '--security-info', '--domain', name)
  } catch (error) {
    if (error instanceof SubpageError && error.code === 'GUEST_UNKNOWN') return undefined
    throw error
  }
}

/** @throws SubpageError GUEST_EXISTS */
async function refuseOther(virsh: Virsh, name: string, uuid: string): Promise<void> {
  const xml = await definitionOf(virsh, name)
  if (xml === undefined) return
  if (textAt(rootOf(parseDomain(xml)), 'uuid') !== uuid)
    throw new SubpageError('GUEST_EXISTS', `libvirt of this host has another domain of the name ${name}`)
  const state = (await virsh.run('domstate', '--domain', name)).trim()
  if (state !== 'shut off')
    throw new SubpageError(
      'GUEST_EXISTS',
      `the domain ${name} is ${state} on this host: virsh destroy ${name}`,
    )
}
