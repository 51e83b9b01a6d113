/**
 * Runs a QEMU of our own for a moment and reads what it prints. It never outlives the probe: it is killed by its pid before
 * the answer, and by the kernel should we die first.
 */
import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { qemuBinary } from '../launch.ts'

export interface ProbeOutcome {
  /** `matched`: `until` was seen. */
  how: 'matched' | 'ended' | 'timeout' | 'missing'
  stdout: string
  stderr: string
}

export interface ProbeOptions {
  stdin?: string
  /** Beside our own. */
  environment?: Record<string, string>
  /** Ends the probe when it matches standard output. */
  until?: RegExp
  timeMsMax: number
}

export function probeQemu(
  args: string[],
  { stdin = '', environment = {}, until, timeMsMax }: ProbeOptions,
): Promise<ProbeOutcome> {
  const binary = findCommand(qemuBinary)
  if (binary === undefined) return Promise.resolve({ how: 'missing', stdout: '', stderr: '' })
  // setpriv replaces itself by QEMU, so the pid is QEMU's.
  const setpriv = findCommand('setpriv')
  const command = [...(setpriv ? [setpriv, '--pdeathsig', 'KILL', '--'] : []), binary, ...args]
  return new Promise((resolve, reject) => {
    const child = spawn(command[0]!, command.slice(1), {
      stdio: 'pipe',
      env: { ...process.env, ...environment },
    })
    let how: ProbeOutcome['how'] = 'ended'
    let stdout = ''
    let stderr = ''
    const stop = (why: 'matched' | 'timeout') => {
      if (how === 'ended') how = why
      child.kill('SIGKILL')
    }
    const timer = setTimeout(stop, timeMsMax, 'timeout')
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
      if (until?.test(stdout)) stop('matched')
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    child.once('error', (error) => {
      clearTimeout(timer)
      reject(error)
    })
    child.once('close', () => {
      clearTimeout(timer)
      resolve({ how, stdout, stderr })
    })
    // A QEMU that ends before it has read everything is seen by `close`.
    child.stdin.on('error', () => undefined)
    child.stdin.end(stdin)
  })
}

/** What it said last, for people. */
export function lastLine({ how, stderr }: ProbeOutcome, timeMsMax: number): string {
  const said = stderr.trim().split('\n').at(-1)
  return said || (how === 'timeout' ? `no answer in ${timeMsMax / 1000} s` : 'it said nothing')
}

/** The path of a command, or undefined when no folder of PATH holds it. */
export function findCommand(name: string): string | undefined {
  const candidates = name.includes('/')
    ? [name]
    : (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder || '.', name))
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
