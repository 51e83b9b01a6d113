/**
 * Starts the QEMU program. It comes up under a limit of the length of the files that it may write, so that no guest can fill a
 * file system, whoever watches; beyond it a write fails, and QEMU goes on.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { SubpageError } from '../errors.ts'
import { logBytesMax } from './bounded-log.ts'

/** Unless it is ignored, the signal that comes with such a write would end QEMU (getrlimit(2)). */
const limited = 'trap "" XFSZ; ulimit -S -f "$1"; shift; exec "$@"'
/** Of `ulimit -f` (POSIX). */
const unitBytes = 512

export interface Start {
  program: string
  args: string[]
  directory: string
  /** Descriptor of the log; it takes both streams. */
  log: number
  /** Inherited as descriptor 3. */
  deviceState: number
  /** Inherited as descriptor 4. */
  library?: number
  environment: NodeJS.ProcessEnv
  /** For files of QEMU's plugin, which are as large as what it notes. */
  unlimited: boolean
}

/** @throws SubpageError QEMU_MISSING */
export function spawnQemu({ program, args, unlimited, ...start }: Start): ChildProcess {
  const limit = unlimited ? 'unlimited' : String(logBytesMax / unitBytes)
  return spawn('/bin/sh', ['-c', limited, 'sh', limit, find(program), ...args], {
    cwd: start.directory,
    detached: true,
    stdio: [
      'ignore',
      start.log,
      start.log,
      start.deviceState,
      ...(start.library === undefined ? [] : [start.library]),
    ],
    env: start.environment,
  })
}

function find(program: string): string {
  const places = program.includes('/') ? [''] : (process.env.PATH ?? '').split(delimiter)
  for (const place of places) {
    const path = join(place, program)
    try {
      accessSync(path, constants.X_OK)
      return program.includes('/') ? program : path
    } catch {
      // Not here.
    }
  }
  throw new SubpageError('QEMU_MISSING', `cannot start ${program}: is it installed? (subpage check)`)
}
