/** Where an agent keeps its state, and where in it its API is found. Apart, so that a client need not load an agent. */
import { join } from 'node:path'
import { runtimeDirectory } from '../environment.ts'
import { socketPath } from '../qemu/state-path.ts'

/** @throws SubpageError BAD_ARGUMENT when its path is too long for a socket */
export const apiSocket = (stateDirectory: string) => socketPath(stateDirectory, 'api.sock')

/** Where an agent keeps its state unless told otherwise: /run/subpage for root, the session's directory for others. */
export function defaultStateDirectory(): string {
  if (process.getuid?.() === 0) return '/run/subpage'
  const session = runtimeDirectory()
  return session ? join(session, 'subpage') : `/tmp/subpage-${process.getuid?.()}`
}
