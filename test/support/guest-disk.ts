/** A disk of a guest with a file system, on which the guest writes numbered records, each of them safe before it is said. */
import { execFileSync, spawnSync } from 'node:child_process'
import { truncateSync, writeFileSync } from 'node:fs'
import {
  type Console,
  consoleLength,
  readConsole,
  recordLoop,
  recordsIn,
  typeLine,
  untilConsole,
} from '../../src/qemu/demo-guest.ts'

const diskMib = 64

/** An ext4 file system on a new disk. */
export function makeDisk(path: string, format: 'raw' | 'qcow2' = 'raw'): void {
  const raw = format === 'raw' ? path : `${path}.raw`
  writeFileSync(raw, '')
  truncateSync(raw, diskMib * 2 ** 20)
  execFileSync('mkfs.ext4', ['-q', '-F', '-E', 'lazy_itable_init=0', raw])
  if (format !== 'raw') execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', format, raw, path])
}

/** Mounts it in the guest and begins to write. Each number is on the disk before it is on the console. */
export async function beginRecords(console: Console, device = '/dev/vda'): Promise<void> {
  const from = consoleLength(console)
  await typeLine(console, `run mkdir -p /mnt && mount -t ext4 ${device} /mnt && echo mounted`)
  await untilConsole(console, from, (said) => /^mounted$/m.exec(said) ?? undefined, 30_000)
  const append = 'dd of=/mnt/records oflag=append conv=notrunc,fsync 2>/dev/null'
  await typeLine(console, `run ${recordLoop(`echo $i | ${append}`)} &`)
  await untilRecord(console, from, 1)
}

/** Resolves with the newest record when there is one of this number or a later one. */
export const untilRecord = (console: Console, from: number, number: number): Promise<number> =>
  untilConsole(
    console,
    from,
    (said) => {
      const last = recordsIn(said).at(-1)
      return last !== undefined && last >= number ? last : undefined
    },
    60_000,
  )

export const lastRecord = (console: Console, to: number): number =>
  recordsIn(readConsole(console, 0, to)).at(-1) ?? 0

/**
 * The journal of an ext4 file system is played back, as at a mount, which counts as a correction; what needs a person is refused. Then it
 * must be clean: throws when it is not.
 */
export function assertClean(raw: string): void {
  const { status, stdout } = spawnSync('e2fsck', ['-p', raw], { encoding: 'utf8' })
  if (status !== 0 && status !== 1) throw new Error(`e2fsck -p ended with ${status}: ${stdout}`)
  execFileSync('e2fsck', ['-f', '-n', raw], { stdio: 'pipe' })
}

/** What the file system on a disk, which nobody uses, says: throws when it is damaged; else the records in it. */
export function recordsOn(path: string, format: 'raw' | 'qcow2' = 'raw'): number[] {
  const raw = format === 'raw' ? path : `${path}.checked`
  if (format !== 'raw') execFileSync('qemu-img', ['convert', '-O', 'raw', path, raw])
  assertClean(raw)
  const text = execFileSync('debugfs', ['-R', 'cat /records', raw], {
    encoding: 'utf8',
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  return text.trim().split('\n').map(Number)
}
