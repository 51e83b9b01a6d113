/**
 * Where the RAM of a guest is opened: by the name of its file, or, when that is gone or has come to name another file, through the
 * process that has it open. A guest does not end because somebody cleans up /dev/shm.
 * Source: proc(5), /proc/PID/fd.
 */
import { readdirSync, readlinkSync, statSync } from 'node:fs'
import { basename } from 'node:path'

/** The kernel's mark behind the name of an open file that has none any more. */
const gone = ' (deleted)'

/**
 * A path by which the RAM can be opened, now: for whoever opens it at once.
 * @param pid the process whose RAM it is
 * @param path of the file with which it was started
 */
export function ramPathOf(pid: number, path: string): string {
  const leaf = withoutTag(path)
  let unnamed: string | undefined
  for (const fd of descriptorsOf(pid)) {
    const at = `/proc/${pid}/fd/${fd}`
    const name = linkOf(at)
    if (name === undefined) continue
    if (withoutTag(name) === leaf) {
      if (isSame(at, path)) return path
      if (isSame(at, name)) return name
    }
    if (withoutTag(name) === leaf + gone) unnamed = at
  }
  // A process that cannot be looked into: the name is all there is.
  return unnamed ?? path
}

/** No name leads to it any more. */
export function isRamUnlinked(pid: number, path: string): boolean {
  return ramPathOf(pid, path).startsWith('/proc/')
}

/** An agent that reaches the state directory by another mount than the one before it has another tag for it. */
const withoutTag = (path: string) => basename(path).replace(/^subpage-[0-9a-f]{8}-/, '')

function descriptorsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`)
  } catch {
    // It has ended, or is somebody else's.
    return []
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    // Closed meanwhile.
    return undefined
  }
}

function isSame(one: string, other: string): boolean {
  try {
    const [a, b] = [one, other].map((path) => statSync(path, { bigint: true }))
    return a?.dev === b?.dev && a?.ino === b?.ino
  } catch {
    // One of them is not there.
    return false
  }
}
