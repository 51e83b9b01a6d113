/** Processes of this machine, whoever started them. */
import { readdirSync, readFileSync } from 'node:fs'

/** Those with this text in their arguments. */
export function processesWith(argument: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      if (!Number.isInteger(pid)) return false
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(argument)
      } catch {
        // It has ended meanwhile.
        return false
      }
    })
}
