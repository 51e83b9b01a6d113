/** The commands by which people see a guest and speak with it: console, screenshot. */
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import type { GuestStatus } from '../../agent/status.ts'
import { errorCode, SubpageError } from '../../errors.ts'
import { type FileLock, lockFile } from '../../memory/file-lock.ts'
import { checkOutput, writeOutput } from '../../output-file.ts'
import { agentFlags, agentOf } from '../agent-of.ts'
import type { Command, Invocation } from '../command.ts'
import { guestName } from '../guest-name.ts'
import { formatBytes } from '../sizes.ts'
import { otherHost } from '../status-text.ts'

/** Ctrl-], as telnet(1) and virsh(1) have it. */
const detachByte = 0x1d

export const consoleCommand: Command = {
  name: 'console',
  args: ['<name>'],
  completes: ['guest'],
  summary: "a guest's serial console, on the host where it runs",
  help: 'Ctrl-] detaches; the guest runs on. One at a time has the console; its log (see `status`) has what was said before.\nAfter a failover or switchover the console is on the other host.',
  flags: agentFlags,
  async run(invocation) {
    const agent = agentOf(invocation)
    const name = guestName(String(invocation.args[0]))
    const status = await agent.guest(name)
    assertHere(status, 'console')
    const lock = takeConsole(status)
    try {
      const socket = await connect(status)
      invocation.output.note(`console of ${name}; Ctrl-] detaches`)
      if (await speak(socket)) return invocation.output.note(`\ndetached; ${name} runs on`)
    } finally {
      lock.release()
    }
    // Gone, as far as can be seen from here.
    const now = await agent.guest(name).catch(() => undefined)
    throw new SubpageError(
      'GUEST_DIED',
      now?.role === 'Standby' && now.peer !== null
        ? `the console closed: ${name} runs on ${otherHost(now)} now`
        : `the console closed: ${now ? `${name} is ${now.state}${now.reason && `, ${now.reason}`}` : `${name} is gone`}`,
    )
  },
}

export const screenshotCommand: Command = {
  name: 'screenshot',
  args: ['<name>'],
  completes: ['guest'],
  summary: "a picture of a guest's screen",
  help: "Example:\n  subpage screenshot web -o web.png\n\nAsk the host where the guest runs. It has a screen with `run --vnc auto`, or a device for it among QEMU's options.",
  flags: [
    ...agentFlags,
    { form: '-o, --output <file>', summary: 'where the PNG goes (required)' },
    { form: '--force', summary: 'replace a file that exists' },
  ],
  async run(invocation: Invocation) {
    const { flags, output } = invocation
    const name = guestName(String(invocation.args[0]))
    if (flags.output === undefined)
      throw new SubpageError('BAD_ARGUMENT', 'say where the picture goes: -o FILE')
    const path = String(flags.output)
    const options = { replace: flags.force === true, mode: 0o600 }
    checkOutput(path, options)
    const agent = agentOf(invocation)
    assertHere(await agent.guest(name), 'screen')
    const picture = Buffer.from((await agent.screenshot(name)).png, 'base64')
    writeOutput(path, picture, options)
    output.data({ path, bytes: picture.length }, () => `${path}: ${formatBytes(picture.length)}`)
  },
}

/** @throws SubpageError where the guest does not run */
function assertHere({ name, role, peer, pid, state }: GuestStatus, what: string): void {
  if (role === 'Standby')
    throw new SubpageError(
      'HELD_ELSEWHERE',
      `${name} is a standby here; its ${what} is on ${peer ?? 'its primary'}`,
    )
  if (pid === null || state === 'Ended' || state === 'Failed')
    throw new SubpageError('GUEST_DIED', `${name} does not run: ${state}`)
}

function takeConsole({ name, consoleSocket }: GuestStatus): FileLock {
  let lock: FileLock | undefined
  try {
    lock = lockFile(`${consoleSocket}.lock`, 'a', 0o600)
  } catch (cause) {
    throw unreachable(name, consoleSocket, cause)
  }
  if (lock) return lock
  throw new SubpageError('CONSOLE_TAKEN', `somebody has the console of ${name} already`)
}

async function connect({ name, consoleSocket }: GuestStatus): Promise<Socket> {
  const socket = createConnection(consoleSocket)
  try {
    await once(socket, 'connect')
    return socket
  } catch (cause) {
    throw unreachable(name, consoleSocket, cause)
  }
}

const unreachable = (name: string, path: string, cause: unknown) =>
  new SubpageError(
    'AGENT_UNREACHABLE',
    `the console of ${name} is ${path} on the host of its agent, and cannot be opened from here: ${errorCode(cause) ?? cause}`,
    { cause },
  )

/** Until one side ends it. True when we did. */
async function speak(socket: Socket): Promise<boolean> {
  const { stdin, stdout } = process
  let detached = false
  const detach = () => {
    detached = true
    socket.end()
    socket.destroy()
  }
  stdin.setRawMode?.(true)
  stdin.on('data', (typed: Buffer) => {
    const end = typed.indexOf(detachByte)
    socket.write(end < 0 ? typed : typed.subarray(0, end))
    if (end >= 0) detach()
  })
  stdin.once('end', detach)
  // A console that breaks off is closed: that is waited for.
  socket.on('error', () => undefined)
  socket.on('data', (said: Buffer) => stdout.write(said))
  try {
    await new Promise((resolve) => socket.once('close', resolve))
    return detached
  } finally {
    stdin.setRawMode?.(false)
    stdin.pause()
    stdin.removeAllListeners('data')
  }
}
