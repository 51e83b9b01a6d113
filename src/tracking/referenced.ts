/**
 * How much of a process's memory was accessed, by the processor's own accessed bits: /proc/PID/clear_refs takes them away,
 * smaps counts them later (Linux, Documentation/filesystems/proc.rst). Sums for each mapping, not which pages; no fault and
 * nothing lost, whatever kind of memory it is.
 *
 * An entry that stays in a processor's TLB is not marked again, because clearing does not flush it: memory that is used
 * without rest may be missed, as much as the TLB holds (some MiB). A KVM guest's accesses are not seen at all: they go
 * through tables of its own.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { errorCode, SubpageError } from '../errors.ts'
import { pageBytes } from '../memory/page.ts'
import { processEnded } from './watched-process.ts'

export interface ReferencedMapping {
  start: number
  end: number
  /** Path of the file, "[heap]" and so on; '' for memory without a name. */
  name: string
  residentPages: number
  /** Accessed since the references were cleared. */
  referencedPages: number
}

/** From now on no page of the process counts as accessed. @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE */
export function clearReferences(pid: number): void {
  asking(pid, () => writeFileSync(`/proc/${livingThread(pid)}/clear_refs`, '1'))
}

/** @throws SubpageError GUEST_DIED, TRACKER_UNAVAILABLE */
export function readReferences(pid: number): ReferencedMapping[] {
  return parseSmaps(asking(pid, () => readFileSync(`/proc/${livingThread(pid)}/smaps`, 'utf8')))
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
const pagesOfKib = (kib: string) => (Number(kib) * 1024) / pageBytes

/** The text of smaps. Fields that a kernel does not have count 0. */
export function parseSmaps(text: string): ReferencedMapping[] {
  const found: ReferencedMapping[] = []
  for (const line of text.split('\n')) {
    const mapping = heading.exec(line)
    if (mapping) {
      const [, start, end, name] = mapping
      const none = { residentPages: 0, referencedPages: 0 }
      found.push({ start: Number.parseInt(start!, 16), end: Number.parseInt(end!, 16), name: name!, ...none })
      continue
    }
    const field = /^(Rss|Referenced): +(\d+) kB$/.exec(line)
    const last = found.at(-1)
    if (!field || !last) continue
    const pages = pagesOfKib(field[2]!)
    if (field[1] === 'Rss') last.residentPages = pages
    else last.referencedPages = pages
  }
  return found
}

function asking<T>(pid: number, ask: () => T): T {
  try {
    return ask()
  } catch (cause) {
    const code = errorCode(cause)
    if (code === 'ENOENT' || code === 'ESRCH') throw processEnded(pid, cause)
    if (code !== 'EACCES' && code !== 'EPERM') throw cause
    throw new SubpageError(
      'TRACKER_UNAVAILABLE',
      `may not look into process ${pid}: run as its user, or with CAP_SYS_PTRACE`,
      { cause },
    )
  }
}
