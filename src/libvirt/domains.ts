/** The domains of a host as `subpage libvirt` shows and prepares them. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Document } from '@xmldom/xmldom'
import { SubpageError } from '../errors.ts'
import { firmwareOf } from '../qemu/firmware.ts'
import { define } from './definition.ts'
import { admissionRefusals } from './domain-admission.ts'
import { withoutPlaces } from './domain-disks.ts'
import {
  assertName,
  type DomainFiles,
  domainFiles,
  hasFiles,
  isHeld,
  makeFiles,
  nameRefusal,
  removeFiles,
} from './domain-files.ts'
import { unknownFirmware, withoutFirmware } from './domain-firmware.ts'
import { emulatorOf } from './domain-guest.ts'
import { changesOf, type Refusal, refusalsOf, refuseUnprotectable } from './domain-policy.ts'
import { attribute, find, formatDomain, parseDomain, rootOf, textAt } from './domain-xml.ts'
import { baseOf, isPrepared, isSame, prepared, unprepared } from './preparation.ts'
import type { Virsh } from './virsh.ts'

export interface ListedDomain {
  name: string
  running: boolean
  /** What is missing: nothing, a restart of the guest, `subpage libvirt prepare`, or more than that. */
  protectable: 'yes' | 'after-restart' | 'after-prepare' | 'no'
  refusals: Refusal[]
  /** What `subpage libvirt prepare` changes that people see, or has changed. */
  changes: Refusal[]
}

/** All domains, by name. @throws SubpageError as Virsh.run does */
export async function listDomains(virsh: Virsh): Promise<ListedDomain[]> {
  const names = async (...which: string[]) => linesOf(await virsh.run('list', '--name', ...which))
  const running = new Set(await names())
  const persistent = new Set(await names('--all', '--persistent'))
  const emulator = await emulatorOf(virsh)
  const domains: ListedDomain[] = []
  for (const name of (await names('--all')).sort())
    try {
      const reason = nameRefusal(name)
      // Asked about, it would show another one.
      if (reason !== undefined) domains.push(unnamable(name, running.has(name), reason))
      else domains.push(await look(virsh, emulator, name, running.has(name), persistent.has(name)))
    } catch (error) {
      // Gone since the names were read.
      if (!(error instanceof SubpageError) || error.code !== 'GUEST_UNKNOWN') throw error
    }
  return domains
}

const unnamable = (name: string, running: boolean, reason: string): ListedDomain => ({
  ...{ name, running, protectable: 'no', refusals: [{ part: 'name', reason }], changes: [] },
})

async function look(
  virsh: Virsh,
  emulator: string,
  name: string,
  running: boolean,
  persistent: boolean,
): Promise<ListedDomain> {
  const which = persistent ? ['--inactive'] : []
  const xml = await virsh.run('dumpxml', ...which, '--security-info', '--domain', name)
  const own = parseDomain(unprepared(xml))
  const refusals = [...refusalsOf(own), ...foreseen(own, emulator)]
  if (!persistent)
    refusals.unshift({ part: 'domain', reason: 'it is transient: define it first (virsh define)' })
  const next = isPrepared(parseDomain(xml))
  const now = running ? await isPreparedNow(virsh, name) : next
  const protectable = refusals.length > 0 ? 'no' : !next ? 'after-prepare' : now ? 'yes' : 'after-restart'
  return { name, running, protectable, refusals, changes: changesOf(own) }
}

/** What `protect` would find of a description: where its images may lie only the agents know. */
function foreseen(own: Document, emulator: string): Refusal[] {
  const isUefi = attribute(find(rootOf(own), 'os/loader'), 'type') === 'pflash'
  const code = textAt(rootOf(own), 'os/loader')
  const firmware = isUefi && code !== '' && !firmwareOf(code) ? [unknownFirmware(code)] : []
  const document = withoutFirmware(withoutPlaces(parseDomain(formatDomain(own))))
  return [...firmware, ...admissionRefusals(document, { images: undefined, emulator })]
}

/** What the QEMU that runs was started with. */
async function isPreparedNow(virsh: Virsh, name: string): Promise<boolean> {
  return isPrepared(parseDomain(await virsh.run('dumpxml', '--domain', name)))
}

export interface Preparation {
  name: string
  /** As libvirt has it, and as it shall be; formatted alike, without passwords. */
  before: string
  after: string
  running: boolean
  /** Makes the change. */
  apply(): Promise<void>
}

/**
 * What would be changed; `before` equals `after` when nothing would.
 * @param base directory of the files of all domains
 * @throws SubpageError GUEST_UNKNOWN, GUEST_UNPROTECTABLE with all reasons
 */
export async function planPreparation(
  virsh: Virsh,
  base: string,
  name: string,
  undo: boolean,
): Promise<Preparation> {
  assertName(name)
  // Libvirt leaves passwords out unless it is asked, and a description without them would take them away.
  const xml = await virsh.run('dumpxml', '--inactive', '--security-info', '--domain', name)
  const running = linesOf(await virsh.run('list', '--name')).includes(name)
  const persistent = linesOf(await virsh.run('list', '--name', '--all', '--persistent')).includes(name)
  if (!persistent)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `the domain ${name} is transient: define it first (virsh define)`,
    )
  const own = parseDomain(unprepared(xml))
  if (!undo) refuseUnprotectable(own, foreseen(own, await emulatorOf(virsh)))
  const there = baseOf(parseDomain(xml))
  const files = domainFiles(undo ? (there ?? base) : base, name)
  if (there !== undefined && (undo || resolve(there) !== resolve(base))) assertFree(domainFiles(there, name))
  const wanted = undo ? unprepared(xml) : prepared(xml, files)
  const same = isSame(xml, wanted)
  const before = formatDomain(parseDomain(xml))
  return {
    name,
    before: withoutPasswords(before),
    after: withoutPasswords(same ? before : wanted),
    running,
    apply: async () => {
      if (!undo && !hasFiles(files)) await makeFiles(virsh, files)
      if (!same) await define(virsh, wanted)
      if (undo) await clearAway(virsh, name, running, files)
    },
  }
}

/** Without them nothing would keep it from being started where its guest may not run. @throws SubpageError HELD_ELSEWHERE */
function assertFree(files: DomainFiles): void {
  if (isHeld(files)) throw new SubpageError('HELD_ELSEWHERE', readFileSync(files.held, 'utf8'))
}

/** A guest that runs with them keeps them until it ends. */
async function clearAway(virsh: Virsh, name: string, running: boolean, files: DomainFiles): Promise<void> {
  if (!running || !(await isPreparedNow(virsh, name))) removeFiles(files)
}

const withoutPasswords = (xml: string) => xml.replace(/ passwd="[^"]*"/g, ' passwd="********"')

const linesOf = (text: string) => text.split('\n').filter((line) => line !== '')
