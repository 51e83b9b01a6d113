/** Stops processes for tests that go on from there: a stop takes hold of each thread when that thread comes to it. */
import { readdirSync, readFileSync } from 'node:fs'
import { expect } from 'vitest'

/** Sends SIGSTOP and waits until no thread of the process runs any more. SIGCONT ends it. */
export async function standStill(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP')
  await untilStill(pid)
}

/** Until every thread of a process is stopped, by whomever. */
export async function untilStill(pid: number): Promise<void> {
  const states = () =>
    readdirSync(`/proc/${pid}/task`).map((thread) => {
      const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1')
      return stat.charAt(stat.lastIndexOf(')') + 2)
    })
  await expect.poll(() => new Set(states()), { timeout: 20_000 }).toEqual(new Set(['T']))
}
