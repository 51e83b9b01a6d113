/** The domains of a host as `subpage libvirt` shows and prepares them. */
import { SubpageError } from '../errors.ts'
import { define } from './definition.ts'
import { type DomainFiles, domainFiles, hasFiles, makeFiles, removeFiles } from './domain-files.ts'
import { changesOf, type Refusal, refusalsOf, refuseUnprotectable } from './domain-policy.ts'
import { formatDomain, parseDomain } from './domain-xml.ts'
import { isPrepared, isSame, prepared, unprepared } from './preparation.ts'
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
  const domains: ListedDomain[] = []
  for (const name of (await names('--all')).sort())
    try {
      domains.push(await look(virsh, name, running.has(name), persistent.has(name)))
    } catch (error) {
      // Gone since the names were read.
      if (!(error instanceof SubpageError) || error.code !== 'GUEST_UNKNOWN') throw error
    }
  return domains
}

async function look(
  virsh: Virsh,
  name: string,
  running: boolean,
  persistent: boolean,
): Promise<ListedDomain> {
  const xml = await virsh.run('dumpxml', ...(persistent ? ['--inactive'] : []), '--domain', name)
  const own = parseDomain(unprepared(xml))
  const refusals = refusalsOf(own)
  if (!persistent)
    refusals.unshift({ part: 'domain', reason: 'it is transient: define it first (virsh define)' })
  const next = isPrepared(parseDomain(xml))
  const now = running ? await isPreparedNow(virsh, name) : next
  const protectable = refusals.length > 0 ? 'no' : !next ? 'after-prepare' : now ? 'yes' : 'after-restart'
  return { name, running, protectable, refusals, changes: changesOf(own) }
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
  // Libvirt leaves passwords out unless it is asked, and a description without them would take them away.
  const xml = await virsh.run('dumpxml', '--inactive', '--security-info', '--domain', name)
  const running = linesOf(await virsh.run('list', '--name')).includes(name)
  const persistent = linesOf(await virsh.run('list', '--name', '--all', '--persistent')).includes(name)
  if (!persistent)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `the domain ${name} is transient: define it first (virsh define)`,
    )
  const files = domainFiles(base, name)
  if (!undo) refuseUnprotectable(parseDomain(unprepared(xml)))
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

/** A guest that runs with them keeps them until it ends. */
async function clearAway(virsh: Virsh, name: string, running: boolean, files: DomainFiles): Promise<void> {
  if (!running || !(await isPreparedNow(virsh, name))) removeFiles(files)
}

const withoutPasswords = (xml: string) => xml.replace(/ passwd="[^"]*"/g, ' passwd="********"')

const linesOf = (text: string) => text.split('\n').filter((line) => line !== '')
