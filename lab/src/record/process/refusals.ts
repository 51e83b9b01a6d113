/** Why a process cannot be recorded, in words; also what the kernel does not say. */
import { readFileSync } from 'node:fs'
import { getSystemErrorName } from 'node:util'
import { SubpageError } from 'subpage/errors'
import type { Failed, Watched } from './holder.ts'

const nameLengthMax = 80

export function oneLine(command: string): string {
  const line = command.replace(/\s+/g, ' ')
  return line.length <= nameLengthMax ? line : `${line.slice(0, nameLengthMax - 1)}…`
}

export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    // It has ended: that is found out when it is held.
    return 'unknown'
  }
}

export const reason = ({ step, errno }: Pick<Failed, 'step' | 'errno'>) =>
  errno === 0 ? step : `${step}: ${getSystemErrorName(-errno)}`

export function failure(watched: Watched, failed: Failed): SubpageError {
  const { step, errno } = failed
  const name = errno === 0 ? undefined : getSystemErrorName(-errno)
  if ('command' in watched) {
    const command = watched.command[0]!
    if (step === 'exec')
      return new SubpageError(
        'BAD_ARGUMENT',
        `cannot start ${command}: ${name === 'ENOENT' ? 'no such program' : name}`,
      )
    if (step === 'ptrace') return new SubpageError('PROCESS_REFUSED', `may not watch ${command} (${name})`)
    return new SubpageError('TRACKER_UNAVAILABLE', `cannot record ${command}: ${reason(failed)}`)
  }
  const { pid } = watched
  if (step === 'ptrace' && name === 'ESRCH')
    return new SubpageError('BAD_ARGUMENT', `there is no process ${pid}`)
  if (step === 'ptrace')
    return new SubpageError('PROCESS_REFUSED', `may not watch process ${pid}: ${whyRefused(pid)}`)
  if (step === 'ended') return new SubpageError('GUEST_DIED', `process ${pid} has ended`)
  if (step === 'hold')
    return new SubpageError(
      'PROCESS_REFUSED',
      `process ${pid} cannot be held: it waits in the kernel and does not come back`,
    )
  return new SubpageError('TRACKER_UNAVAILABLE', `cannot track process ${pid}: ${reason(failed)}`)
}

/** What the kernel does not say. */
function whyRefused(pid: number): string {
  const status = contentOf(`/proc/${pid}/status`)
  const field = (name: string) => new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]
  const tracer = Number(field('TracerPid') ?? 0)
  if (tracer !== 0)
    return `process ${tracer} (${commandOf(tracer)}) traces it already, and a process has one tracer: end that first`
  if (field('Kthread') === '1') return 'it is a thread of the kernel'
  const owner = Number(field('Uid'))
  if (process.geteuid!() !== 0 && owner !== process.geteuid!())
    return `it belongs to user ${owner}: record as that user, or with CAP_SYS_PTRACE`
  // Another owner's, a tracer's and the kernel's are above: what is left is not the user's to change by becoming root.
  if (process.geteuid!() === 0)
    return 'the kernel refuses ptrace to root here: this container or service lacks CAP_SYS_PTRACE, a security module (AppArmor, SELinux, Yama) forbids it, or the process is of a user namespace above ours'
  const yama = contentOf('/proc/sys/kernel/yama/ptrace_scope').trim()
  if (yama !== '' && yama !== '0')
    return `this host lets a process watch only its children (kernel.yama.ptrace_scope is ${yama}): record as root, or start it with \`subpage record -- COMMAND\``
  return 'the kernel refuses ptrace: record as root, or with CAP_SYS_PTRACE'
}

function contentOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // Not on every kernel, or the process has ended.
    return ''
  }
}
