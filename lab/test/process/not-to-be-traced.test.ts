/** Processes that may not be traced, or are gone before they can be: one line says why, and nothing happens to them. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { errorTable, SubpageError } from 'subpage/errors'
import { afterAll, expect, test } from 'vitest'
import { mainFile, subpage } from '../../../test/support/subpage.ts'
import { openProcess } from '../../src/record/process/process-target.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-not-traced-'))
const trace = join(folder, 'trace')
afterAll(() => rmSync(folder, { recursive: true }))

const isRoot = process.geteuid!() === 0
const statusOf = (pid: number) => {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)![1]!
  return { tracer: field('TracerPid'), stopped: /[tT]/.test(field('State')), threads: field('Threads') }
}

// It is an init of the host, one of a container, or something that the kernel lets nobody trace.
test('process 1 is recorded, or refused with the reason', async () => {
  const command = () => readFileSync('/proc/1/cmdline', 'latin1')
  const [before, beforeStatus] = [command(), statusOf(1)]
  const { status, said } = await subpage(['record', 'pid:1', '--for', '50ms', '-o', trace])
  if (status === 0) expect(existsSync(trace)).toBe(true)
  else {
    expect(status).toBe(errorTable.PROCESS_REFUSED.exit)
    expect(said).toMatch(/^subpage: may not watch process 1: .+ \(PROCESS_REFUSED\)\n$/)
    // Whoever is root needs other advice.
    if (isRoot) expect(said).not.toMatch(/as root|belongs to user/)
    expect(existsSync(trace)).toBe(false)
  }
  rmSync(trace, { force: true })
  expect([command(), statusOf(1)]).toEqual([before, beforeStatus])
})

const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups']
/** Who asks, and what is said of a process of root's. Only root can be somebody else. */
const askers: [string, string[], RegExp][] = [
  ['somebody else', nobody, /belongs to user 0: record as that user, or with CAP_SYS_PTRACE/],
  [
    'root without CAP_SYS_PTRACE',
    ['--bounding-set=-sys_ptrace'],
    /refuses ptrace to root here: .*lacks CAP_SYS_PTRACE/,
  ],
]
test.each(isRoot ? askers : [])('%s may not trace, and is told why', async (_, as, why) => {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' })
  try {
    await once(child, 'spawn')
    const before = statusOf(child.pid!)
    const asked = ['record', `pid:${child.pid}`, '--for', '1s', '-o', '/dev/null']
    const command = [...as, '--', process.execPath, mainFile, ...asked]
    const { status, stderr } = spawnSync('setpriv', command, { encoding: 'utf8' })
    expect(status).toBe(errorTable.PROCESS_REFUSED.exit)
    expect(stderr).toMatch(/^subpage: may not watch process \d+: .+ \(PROCESS_REFUSED\)\n$/)
    expect(stderr).toMatch(why)
    expect(statusOf(child.pid!)).toEqual(before)
  } finally {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
})

test('a process that ends at once is said to have ended, or is recorded until then', async () => {
  for (let n = 0; n < 24; n++) {
    const child = spawn('sh', ['-c', n % 2 ? `sleep 0.0${n}` : ':'], { stdio: 'ignore' })
    const exited = once(child, 'exit')
    await once(child, 'spawn')
    await delay(n / 4)
    const opened = await openProcess({ pid: child.pid! }, 'auto').catch((error) => error)
    if (opened instanceof Error) {
      expect(opened, opened.stack).toBeInstanceOf(SubpageError)
      expect(opened.message).toMatch(/^(there is no process \d+|process \d+ has ended.*)$/)
    } else await opened.close()
    // Its own status, whatever the moment.
    expect(await exited).toEqual([0, null])
  }
})
