/** An agent under a service manager: it says when it is ready and when it ends, as sd_notify(3) defines, and starts without one. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { addon } from '../../src/memory/native.ts'
import { mainFile } from '../support/subpage.ts'

/** Prints each message that comes; of Debian's essential packages only Perl has such sockets. */
const receiver = `
use Socket; $| = 1; my $path = shift; $path =~ s/^@/\\0/;
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die; bind($s, pack_sockaddr_un($path)) or die $!;
print "bound\\n"; while (defined recv($s, my $text, 4096, 0)) { print "$text\\n" }`

let folder: string
const children: ChildProcess[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-notify-'))
})
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  rmSync(folder, { recursive: true })
})

async function receive(path: string): Promise<() => string[]> {
  const child = spawn('perl', ['-e', receiver, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  let heard = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    heard += text
  })
  await expect.poll(() => heard).toBe('bound\n')
  return () => heard.split('\n').slice(1, -1)
}

function agent(socket?: string, more: NodeJS.ProcessEnv = {}) {
  const child = spawn(process.execPath, [mainFile, 'agent', '--state', join(folder, 'state')], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...(socket !== undefined && { NOTIFY_SOCKET: socket }), ...more },
  })
  children.push(child)
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  return { child, said: () => said }
}

describe.each([
  ['a socket in the file system', () => join(folder, 'notify')],
  ['an abstract socket', () => `@${folder}/notify`],
])('%s', (_, path) => {
  test('hears when the agent serves, and when it ends', async () => {
    const heard = await receive(path())
    const { child } = agent(path())
    await expect.poll(heard).toEqual(['READY=1'])
    child.kill('SIGTERM')
    expect((await once(child, 'exit'))[0]).toBe(0)
    await expect.poll(heard).toEqual(['READY=1', 'STOPPING=1'])
  })
})

describe('a watchdog', () => {
  test('hears signs of life from an agent that works, and none from one that stands still', async () => {
    const heard = await receive(join(folder, 'notify'))
    const { child } = agent(join(folder, 'notify'), { WATCHDOG_USEC: '100000' })
    const signs = () => heard().filter((text) => text === 'WATCHDOG=1').length
    await expect.poll(signs).toBeGreaterThan(3)
    child.kill('SIGSTOP')
    await expect.poll(() => readFileSync(`/proc/${child.pid}/stat`, 'utf8')).toMatch(/\) T /)
    const before = signs()
    await new Promise((resolve) => setTimeout(resolve, 300)) // Three times the time that is given.
    expect(signs()).toBe(before)
  })

  test('that is for another process hears nothing', async () => {
    const heard = await receive(join(folder, 'notify'))
    const { child } = agent(join(folder, 'notify'), { WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' })
    await expect.poll(heard).toEqual(['READY=1'])
    child.kill('SIGTERM')
    await expect.poll(heard).toEqual(['READY=1', 'STOPPING=1'])
  })
})

test('a manager that cannot be reached keeps no agent from serving', async () => {
  const { child, said } = agent(join(folder, 'nowhere'))
  await expect.poll(said).toMatch(/ready/)
  child.kill('SIGTERM')
  expect((await once(child, 'exit'))[0]).toBe(0)
})

test('names that no socket can have', () => {
  for (const [path, code] of [
    ['', 'EINVAL'],
    ['x'.repeat(108), 'ENAMETOOLONG'],
    [join(tmpdir(), 'no-such-socket'), 'ENOENT'],
  ] as const)
    expect(() => addon.sendDatagram(path, 'READY=1')).toThrow(expect.objectContaining({ code }))
  expect(() => addon.sendDatagram(1 as never, 'READY=1')).toThrow(TypeError)
})
