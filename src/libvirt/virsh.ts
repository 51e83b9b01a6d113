/**
 * Speaks with libvirt through its own client, virsh(1), of Debian's libvirt-clients: no library of ours has to follow libvirt's.
 * A connection is a URI as libvirt has them, such as qemu:///system.
 */
import { execFile, spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { errorCode, SubpageError } from '../errors.ts'

export const defaultConnection = 'qemu:///system'

/** A libvirtd that hangs must not hang us. One that was just started tries each QEMU first, which takes half a minute on a slow host. */
const answerMsMax = 120_000
/** Of what a command may print: a description of a machine is 5 to 20 KiB. */
const answerBytesMax = 64 * 2 ** 20

export interface Virsh {
  readonly uri: string
  /**
   * @returns what the command prints
   * @throws SubpageError LIBVIRT_MISSING, LIBVIRT_UNREACHABLE, GUEST_UNKNOWN, LIBVIRT_REFUSED
   */
  run(...args: string[]): Promise<string>
  /** The same; the command finds this open file at `inherited`. @param file its descriptor */
  runWith(file: number, ...args: string[]): Promise<void>
}

/** Where a command of virsh has a file that it was given open. */
export const inherited = '/proc/self/fd/3'

/** @throws SubpageError BAD_ARGUMENT for a URI that is not one of QEMU's on this machine */
export function connectVirsh(uri: string): Virsh {
  if (!/^qemu:\/\/\/(system|session|embed\?root=\/[^\s&]+)$/.test(uri))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${uri} is no connection to QEMU on this host: qemu:///system or qemu:///session`,
    )
  return {
    uri,
    run: (...args) => run(uri, args),
    runWith: (file, ...args) => runWith(uri, file, args),
  }
}

const command = (uri: string, args: readonly string[]) => ['--quiet', '--connect', uri, ...args]
const environment = () => ({ ...process.env, LC_ALL: 'C' })

function run(uri: string, args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { maxBuffer: answerBytesMax, timeout: answerMsMax, env: environment() }
    execFile('virsh', command(uri, args), options, (error, stdout, stderr) => {
      if (!error) resolve(stdout)
      else reject(failureOf(uri, args, error, stderr))
    })
  })
}

async function runWith(uri: string, file: number, args: string[]): Promise<void> {
  const child = spawn('virsh', command(uri, args), {
    stdio: ['ignore', 'ignore', 'pipe', file],
    timeout: answerMsMax,
    env: environment(),
  })
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (status) =>
      status === 0
        ? resolve()
        : reject(Object.assign(new Error(`it ended with ${status}`), { killed: child.killed })),
    )
  })
  const [said, outcome] = await Promise.all([
    text(child.stderr!),
    ended.then(
      () => undefined,
      (error: Error) => error,
    ),
  ])
  if (outcome) throw failureOf(uri, args, outcome, said)
}

function failureOf(uri: string, args: string[], error: Error & { killed?: boolean }, stderr: string) {
  const failed = (code: ConstructorParameters<typeof SubpageError>[0], message: string) =>
    new SubpageError(code, message, { cause: error })
  if (errorCode(error) === 'ENOENT')
    return failed('LIBVIRT_MISSING', 'virsh is not installed: apt-get install libvirt-clients')
  if (error.killed === true)
    return failed('LIBVIRT_UNREACHABLE', `libvirt at ${uri} gives no answer within ${answerMsMax / 1000} s`)
  const said = stderr
    .split('\n')
    .map((line) => line.replace(/^error: /, '').trim())
    .filter((line) => line !== '')
    .join('; ')
  if (/failed to get domain|Domain not found/i.test(said))
    return failed('GUEST_UNKNOWN', `libvirt at ${uri} has no domain ${args.at(-1)}`)
  if (/failed to connect to the hypervisor|Failed to connect socket|Connection refused/i.test(said))
    return failed(
      'LIBVIRT_UNREACHABLE',
      `libvirt does not answer at ${uri}: ${said}; is libvirtd running (systemctl start libvirtd)?`,
    )
  return failed('LIBVIRT_REFUSED', `virsh ${args[0]}: ${said || error.message}`)
}
