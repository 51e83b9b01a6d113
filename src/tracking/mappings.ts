/**
 * Where a process has mapped a file, and whether the kernel tracks writes there. Read from /proc/PID/smaps: a file is
 * known by device and inode, tracking by `uw` among the VmFlags (proc_pid_smaps(5)).
 */
import { readFileSync, statSync } from 'node:fs'
import { pageBytes } from '../memory/page.ts'

export interface Mapping {
  /** Addresses [start, end): multiples of 4096, so exact as numbers whatever their size. */
  start: number
  end: number
  /** Page of the file that is mapped at `start`. */
  firstPage: number
  /** False when the process cannot change the file through this mapping. */
  writable: boolean
  /** Registered with a userfaultfd for write protection. */
  tracked: boolean
}

const header = /^([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+)/

/** @throws the file system's own error: ENOENT or ESRCH when the process has ended, EACCES without permission */
export function mappingsOf(pid: number, path: string): Mapping[] {
  const wanted = fileIdentity(path)
  const found: Mapping[] = []
  let current: Mapping | undefined
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'latin1').split('\n')) {
    const fields = header.exec(line)
    if (fields) {
      const [, start, end, permissions, offset, device, inode] = fields as unknown as string[]
      current = undefined
      if (`${device} ${inode}` !== wanted) continue
      current = {
        start: Number.parseInt(start!, 16),
        end: Number.parseInt(end!, 16),
        firstPage: Number.parseInt(offset!, 16) / pageBytes,
        // A private mapping keeps its changes to itself.
        writable: permissions!.endsWith('s'),
        tracked: false,
      }
      found.push(current)
    } else if (current && line.startsWith('VmFlags:')) {
      const flags = line.slice('VmFlags:'.length).trim().split(' ')
      current.tracked = flags.includes('uw')
      // `mw`: may be made writable by mprotect.
      current.writable &&= flags.includes('wr') || flags.includes('mw')
    }
  }
  return found
}

/** Device and inode as /proc/PID/maps prints them. */
function fileIdentity(path: string): string {
  const { dev, ino } = statSync(path, { bigint: true })
  // The layout of glibc's dev_t (makedev(3)).
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n)
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n)
  const hex = (value: bigint) => value.toString(16).padStart(2, '0')
  return `${hex(major)}:${hex(minor)} ${ino}`
}
