/**
 * How much of a process's memory was accessed, by the processor's own accessed bits: /proc/PID/clear_refs takes them away,
 * smaps counts them later (Linux, Documentation/filesystems/proc.rst). Sums for each mapping, not which pages; no fault and
 * nothing lost, whatever kind of memory it is.
 *
 * An entry that stays in a processor's TLB is not marked again, because clearing does not flush it: memory that is used
 * without rest may be missed, as much as the TLB holds (some MiB). A KVM guest's accesses are not seen at all: they go
 * through tables of its own.
 *
 * A large page has one bit for all of it, and hugetlb memory none that the kernel tells.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { errorCode, SubpageError } from '../errors.ts'
import { pageBytes } from '../memory/page.ts'

export interface ReferencedMapping {
  start: number
  end: number
  /** Path of the file, "[heap]" and so on; '' for memory without a name. */
  name: string
  residentPages: number
  /** Accessed since the references were cleared. Of a large page all count when one was. */
  referencedPages: number
  /** How many of those that are resident are in large pages. */
  largePages: number
  /** In hugetlb memory; not among the others, and nothing is known of their use. */
  hugetlbPages: number
}

/** Whether the process is a thread of the kernel, which has no memory of its own. @throws SubpageError GUEST_DIED */
export function isKernelThread(pid: number): boolean {
  const stat = asking(pid, () => readFileSync(`/proc/${pid}/stat`, 'latin1'))
  // The name, in parentheses, may hold anything; flags are the seventh field after it (proc_pid_stat(5)).
  const flags = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[6])
  return (flags & 0x00200000) !== 0
}

/** From now on no page of the process counts as accessed. @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE */
export function clearReferences(pid: number): void {
  asking(pid, () => writeFileSync(`/proc/${livingThread(pid)}/clear_refs`, '1'))
}

/** @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE */
export function readReferences(pid: number): ReferencedMapping[] {
  const mappings = parseSmaps(asking(pid, () => readFileSync(`/proc/${livingThread(pid)}/smaps`, 'utf8')))
  // One that has ended has no memory until its parent takes notice of it.
  if (mappings.length === 0) throw ended(pid)
  return mappings
}

/** A first thread that has ended shows no memory, though the process goes on: another one does (proc(5), /proc/TID). */
function livingThread(pid: number): number {
  const hasEnded = (path: string) => /\) [ZX]/.test(readFileSync(`${path}/stat`, 'latin1'))
  if (!hasEnded(`/proc/${pid}`)) return pid
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      if (!hasEnded(`/proc/${pid}/task/${thread}`)) return Number(thread)
    } catch {
      // It has just ended: the next one.
    }
  }
  return pid
}

const heading = /^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)$/
const fields = new Map<string, 'residentPages' | 'referencedPages' | 'largePages' | 'hugetlbPages'>([
  ['Rss', 'residentPages'],
  ['Referenced', 'referencedPages'],
  ['AnonHugePages', 'largePages'],
  ['ShmemPmdMapped', 'largePages'],
  ['FilePmdMapped', 'largePages'],
  ['Shared_Hugetlb', 'hugetlbPages'],
  ['Private_Hugetlb', 'hugetlbPages'],
])
const pagesOfKib = (kib: string) => (Number(kib) * 1024) / pageBytes

/** The text of smaps. Fields that a kernel does not have count 0. */
export function parseSmaps(text: string): ReferencedMapping[] {
  const found: ReferencedMapping[] = []
  for (const line of text.split('\n')) {
    const mapping = heading.exec(line)
    if (mapping) {
      const [, start, end, name] = mapping
      const none = { residentPages: 0, referencedPages: 0, largePages: 0, hugetlbPages: 0 }
      found.push({ start: Number.parseInt(start!, 16), end: Number.parseInt(end!, 16), name: name!, ...none })
      continue
    }
    const [, name, kib] = /^(\w+): +(\d+) kB$/.exec(line) ?? []
    const last = found.at(-1)
    const counted = name && fields.get(name)
    if (counted && last) last[counted] += pagesOfKib(kib!)
  }
  return found
}

const ended = (pid: number, cause?: unknown) =>
  new SubpageError('GUEST_DIED', `process ${pid} has ended`, { cause })

function asking<T>(pid: number, ask: () => T): T {
  try {
    return ask()
  } catch (cause) {
    const code = errorCode(cause)
    if (code === 'ENOENT' || code === 'ESRCH') throw ended(pid, cause)
    if (code !== 'EACCES' && code !== 'EPERM') throw cause
    throw new SubpageError(
      'TRACKER_UNAVAILABLE',
      `may not look into process ${pid}: run as its user, or with CAP_SYS_PTRACE`,
      { cause },
    )
  }
}
