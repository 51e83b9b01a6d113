/** What people must know of a guest whose QEMU lacks the shim. */
import type { GuestStatus } from '../agent/status.ts'
import type { Invocation } from './command.ts'

export function warnOfMissing({ output }: Invocation, { name, shimMissing }: GuestStatus): void {
  if (shimMissing !== null) output.warn(`${name}: ${shimMissing}`)
}
