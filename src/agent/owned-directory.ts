/**
 * Temporary directories that name their owner: the demo and the tests keep agents and guests in them, and what one that
 * was killed left behind can be told from what is in use.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { invariant } from '../errors.ts'
import { guestFiles, guestNames } from '../qemu/guest-files.ts'
import { readRecord } from '../qemu/guest-record.ts'
import { endLeftover } from '../qemu/leftover.ts'
import { identify, isGone, isRunning, killProcess, type ProcessIdentity, untilGone } from '../qemu/process.ts'
import { keeperDirectory } from '../qemu/state-path.ts'
import { supervisorOf } from './supervisor/settings.ts'

const ownerFile = 'owner'

/** Where they are: what is to be mapped as memory is in the latter. */
const places = [tmpdir(), '/dev/shm'] as const

/** Each host's state directory lies directly in it. */
export function makeOwnedDirectory(prefix: string, place: (typeof places)[number] = places[0]): string {
  const directory = mkdtempSync(join(place, prefix))
  const owner = identify(process.pid)
  invariant(owner, 'this process runs')
  writeFileSync(join(directory, ownerFile), JSON.stringify(owner))
  return directory
}

/** Ends the guests that are left in it, and their supervisors, and removes it. Its agents have ended before. */
export async function removeOwnedDirectory(directory: string): Promise<void> {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue
    const host = join(directory, entry.name)
    await endGuests(host)
    // Its keeper ends with the last guest.
    rmSync(keeperDirectory(host), { recursive: true, force: true })
  }
  unmountBelow(directory)
  rmSync(directory, { recursive: true, force: true })
}

/** Tests mount small file systems in theirs; the last one first. */
function unmountBelow(directory: string): void {
  const points = readFileSync('/proc/self/mountinfo', 'latin1')
    .split('\n')
    .flatMap((line) => line.split(' ')[4] ?? [])
    .filter((point) => point.startsWith(`${directory}/`))
  for (const point of points.reverse()) execFileSync('umount', ['--lazy', point])
}

/** Removes those whose owner does not run any more. Returns their names. */
export async function sweepOwnedDirectories(prefixes: string[]): Promise<string[]> {
  const swept: string[] = []
  for (const place of places)
    for (const name of readdirSync(place)) {
      const directory = join(place, name)
      if (!prefixes.some((prefix) => name.startsWith(prefix)) || !isAbandoned(directory)) continue
      await removeOwnedDirectory(directory)
      swept.push(name)
    }
  return swept
}

async function endGuests(stateDirectory: string): Promise<void> {
  for (const name of guestNames(stateDirectory)) {
    const files = guestFiles(stateDirectory, name)
    const supervisor = supervisorOf(files)
    if (supervisor && isRunning(supervisor)) {
      killProcess(supervisor)
      await untilGone(supervisor)
    }
    await endLeftover(files, readable(files))
  }
}

function readable(files: Parameters<typeof readRecord>[0]): ReturnType<typeof readRecord> {
  try {
    return readRecord(files)
  } catch {
    // A test has damaged it, to see what becomes of that.
    return undefined
  }
}

/** Without an owner that can be read nothing is known, and nothing is touched. */
function isAbandoned(directory: string): boolean {
  try {
    const owner = JSON.parse(readFileSync(join(directory, ownerFile), 'utf8')) as ProcessIdentity
    return isGone(owner)
  } catch {
    // Not one of these, or just being made or removed.
    return false
  }
}
