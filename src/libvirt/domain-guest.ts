/** A domain that runs here, as a guest that can be protected: its QEMU, and the machine as both hosts have it. */
import { setTimeout as delay } from 'node:timers/promises'
import { SubpageError } from '../errors.ts'
import type { ManagedFiles } from '../qemu/adoption.ts'
import type { Machine } from '../qemu/options.ts'
import { identify, type ProcessIdentity } from '../qemu/process.ts'
import { readShimStatus } from '../tracking/shim.ts'
import { assertAdmissible } from './domain-admission.ts'
import { backendsOf } from './domain-backends.ts'
import { changeOf } from './domain-changes.ts'
import { disksOf, withoutPlaces } from './domain-disks.ts'
import { assertName, domainFiles } from './domain-files.ts'
import { firmwareOfDomain, withoutFirmware } from './domain-firmware.ts'
import { withNotice } from './domain-notice.ts'
import { cardRefusals, refuseUnprotectable } from './domain-policy.ts'
import { attribute, childrenOf, find, formatDomain, parseDomain, rootOf } from './domain-xml.ts'
import { baseOf, ramBytes, unprepared } from './preparation.ts'
import type { Virsh } from './virsh.ts'

export interface FoundDomain {
  process: ProcessIdentity
  machine: Machine
  files: ManagedFiles
}

/** @throws SubpageError GUEST_UNKNOWN, GUEST_DIED, GUEST_UNPROTECTABLE */
export async function findDomain(
  virsh: Virsh,
  name: string,
  images: readonly string[],
): Promise<FoundDomain> {
  assertName(name)
  const definition = await virsh.run('dumpxml', '--inactive', '--security-info', '--domain', name)
  const own = withNotice(unprepared(definition), undefined)
  refuseUnprotectable(parseDomain(own))
  const description = formatDomain(withoutFirmware(withoutPlaces(parseDomain(own))))
  const root = rootOf(parseDomain(description))
  assertAdmissible(parseDomain(description), { images, emulator: await emulatorOf(virsh) })
  if ((await virsh.run('domstate', '--domain', name)).trim() === 'shut off')
    throw new SubpageError('GUEST_DIED', `the domain ${name} does not run: virsh start ${name}`)
  const live = parseDomain(await virsh.run('dumpxml', '--domain', name))
  const base = baseOf(live)
  if (base === undefined)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `the domain ${name} runs without what it needs: subpage libvirt prepare ${name} --apply, then shut it down and start it`,
    )
  const change = changeOf(live, parseDomain(definition))
  if (change !== undefined)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `the domain ${name} runs otherwise than its definition says, by which the other host would start it (${change}): shut it down and start it, or change the definition (virsh edit)`,
    )
  refuseUnprotectable(parseDomain(own), cardRefusals(live))
  const files = domainFiles(base, name)
  const pid = readShimStatus(files.shimStatus)?.pid
  const process = pid === undefined ? undefined : identify(pid)
  if (!process)
    throw new SubpageError(
      'QEMU_FAILED',
      `the QEMU of ${name} has not loaded the shim, or cannot be seen from here: its log in /var/log/libvirt/qemu says why`,
    )
  const cards = childrenOf(find(rootOf(live), 'devices'), 'interface')
  const firmware = firmwareOfDomain(live)
  const backends = backendsOf(root)
  const machine: Machine = {
    type: attribute(find(root, 'os/type'), 'machine') ?? '',
    ramBytes: ramBytes(root),
    ...(backends && { backends }),
    accel: attribute(root, 'type') === 'kvm' ? 'kvm' : 'tcg',
    ...{ options: [], nics: [], disks: disksOf(live) },
    ...(firmware && { firmware }),
    managed: {
      description,
      // QEMU has them by libvirt's aliases.
      netdevs: cards.map((card) => `host${attribute(find(card, 'alias'), 'name') ?? ''}`),
      autostart: /^Autostart: +enable/m.test(await virsh.run('dominfo', '--domain', name)),
    },
  }
  return { process, machine, files }
}

/** This host's QEMU, as libvirt has it. */
export async function emulatorOf(virsh: Virsh): Promise<string> {
  return /<path>([^<]+)<\/path>/.exec(await virsh.run('domcapabilities', '--arch', 'x86_64'))?.[1] ?? ''
}

/** Libvirt says how a domain has ended when it has waited for its process. */
const endMsMax = 5_000
const endLookMs = 20

/** By libvirt's word for the reason: what somebody has done to a domain that has ended. */
const commands: [pattern: RegExp, done: string][] = [
  [/destroyed/, 'it was ended through libvirt'],
  [/saved/, 'libvirt has saved its state to a file'],
  [/migrated/, 'libvirt has migrated it to another host'],
]

/**
 * What somebody's command (virsh destroy, save, migrate) has done to a domain whose QEMU was ended by a signal; undefined: nobody has
 * meant it to end. A libvirt that cannot be asked has not done it.
 */
export async function commandedEnd(virsh: Virsh, name: string): Promise<string | undefined> {
  const deadline = performance.now() + endMsMax
  while (performance.now() < deadline)
    try {
      const said = await virsh.run('domstate', '--reason', '--domain', name)
      if (said.startsWith('shut off')) return commands.find(([pattern]) => pattern.test(said))?.[1]
      await delay(endLookMs)
    } catch {
      // A death is what it was then: the standby goes on.
      return undefined
    }
  return undefined
}
