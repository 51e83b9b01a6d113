/**
 * The command line as a contract for people and programs: exit statuses, what goes to which output, JSON, environment.
 * With an agent that has no guests: neither QEMU nor privileges are needed.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { apiSocket } from '../../src/agent/state-directory.ts'
import { commands } from '../../src/cli/commands.ts'
import { exitStatus } from '../../src/errors.ts'
import { release } from '../../src/release.ts'
import { mainFile, subpage } from '../support/subpage.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-cli-'))
const state = join(directory, 'agent')
const escapeCharacter = String.fromCharCode(27)
let agent: EphemeralAgent

beforeAll(async () => {
  agent = await startEphemeralAgent({ stateDirectory: state, host: 'here' })
})

afterAll(async () => {
  await agent.end()
  rmSync(directory, { recursive: true })
})

const there = ['--state', state]

describe('help and version', () => {
  test('help names every command', async () => {
    const { status, out, said } = await subpage(['help'])
    expect([status, said]).toEqual([exitStatus.ok, ''])
    for (const { name, summary } of commands) {
      expect(out).toMatch(new RegExp(`^ +${name} `, 'm'))
      expect(out.replace(/\s+/g, ' ')).toContain(summary)
    }
    expect(await subpage(['--help'])).toEqual({ status, out, said })
  })

  test.each(commands.map(({ name }) => name))('help of %s', async (name) => {
    const command = commands.find((other) => other.name === name)!
    const { status, out } = await subpage([name, '--help'])
    expect(status).toBe(exitStatus.ok)
    for (const { form } of command.flags) expect(out).toContain(form)
    expect(out).toContain('--json')
    expect(out).toContain(command.help)
    if (command.rest !== undefined) expect(out).toContain(`-- ${command.rest}`)
  })

  test('the version is one line', async () => {
    expect(await subpage(['--version'])).toEqual({ status: 0, out: `${release}\n`, said: '' })
  })
})

describe('a wrong command line is status 2, and nothing on standard output', () => {
  test.each<[string, string[], RegExp]>([
    ['no command', [], /Usage: subpage/],
    ['an unknown command', ['explode'], /unknown command 'explode'/],
    ['a command nearly right', ['stauts'], /Did you mean status/],
    ['an unknown option', ['status', '--colour'], /unknown option '--colour'/],
    ['no name', ['run'], /missing required argument 'name'/],
    ['a name too many', ['remove', 'a', 'b'], /too many arguments/],
    ['an option without its value', ['protect', 'x', '--to'], /argument missing/],
    ['a choice that there is not', ['protect', 'x', '--tracker', 'magic'], /Allowed choices are auto/],
    [
      'options of QEMU where there are none',
      ['status', ...there, '--', '-smp', '2'],
      /takes nothing after --/,
    ],
    ['protect to nowhere', ['protect', 'x', ...there], /protect needs --to HOST:PORT/],
    ['a size that is none', ['run', 'x', ...there, '--ram', 'much'], /"much" is not a size/],
    [
      'a time that is none',
      ['protect', 'x', ...there, '--to', 'h', '--epoch', 'soon'],
      /"soon" is not a time/,
    ],
    [
      'an address that is none',
      ['protect', 'x', ...there, '--to', 'a:b:c'],
      /"a:b:c" is not an address: write HOST/,
    ],
    [
      'a directory that may be a host',
      ['protect', 'x', ...there, '--to', 'a/b'],
      /"a\/b" is not an address: write HOST.* the state directory .* beginning with \/ or \.\//,
    ],
    [
      'a port that there is not',
      ['protect', 'x', ...there, '--to', 'h:70000'],
      /"h:70000" is not an address/,
    ],
    [
      'less memory than a guest needs',
      ['run', 'x', ...there, '--ram', '1M'],
      /--ram: 1M is too little: at least 16 MiB/,
    ],
    ['a name that is none', ['run', '../x', ...there], /"\.\.\/x" cannot be a guest name/],
    ['an agent that listens nowhere', ['agent', '--listen', 'x:y:z'], /"x:y:z" is not an address/],
    [
      'a state directory too deep',
      ['agent', '--state', join(directory, 'x'.repeat(100))],
      /the path of a socket at most 107: choose a shorter --state/,
    ],
  ])('%s', async (_, args, message) => {
    const { status, out, said } = await subpage(args, { NO_COLOR: '1' })
    expect({ status, out }).toEqual({ status: exitStatus.usage, out: '' })
    expect(said).toMatch(message)
    expect(said).not.toMatch(/^ +at .*\.js/m)
  })
})

describe('errors', () => {
  test('for people: one line with the code; for programs: one object', async () => {
    const text = await subpage(['status', 'nobody', ...there])
    expect(text).toEqual({
      status: exitStatus.notFound,
      out: '',
      said: 'subpage: no guest "nobody" on host here (GUEST_UNKNOWN)\n',
    })
    const json = await subpage(['status', 'nobody', ...there, '--json'])
    expect([json.status, json.out]).toEqual([exitStatus.notFound, ''])
    expect(JSON.parse(json.said)).toEqual({
      code: 'GUEST_UNKNOWN',
      message: 'no guest "nobody" on host here',
    })
    expect(await subpage(['status', 'nobody', ...there], { SUBPAGE_JSON: '1' })).toEqual(json)
  })

  test.each([
    ['verify', 'nobody'],
    ['remove', 'nobody'],
    ['unprotect', 'nobody'],
    ['failover', 'nobody'],
    ['switchover', 'nobody'],
    ['protect', 'nobody', '--to', '127.0.0.1:1'],
  ])('%s of an unknown guest', async (...args) => {
    const { status, said } = await subpage([...args, ...there])
    expect({ status, said }).toEqual({
      status: exitStatus.notFound,
      said: expect.stringContaining('GUEST_UNKNOWN'),
    })
  })

  test('no agent: says where it looked, and what to do', async () => {
    const nowhere = join(directory, 'nowhere')
    for (const args of [
      ['status', '--state', nowhere],
      ['events', '--api', apiSocket(nowhere)],
      ['run', 'x', '--state', nowhere],
    ]) {
      const { status, out, said } = await subpage(args)
      expect({ status, out }).toEqual({ status: exitStatus.failed, out: '' })
      expect(said).toContain(apiSocket(nowhere))
      expect(said).toContain('start one with: subpage agent')
    }
  })

  test('a second agent on the directory', async () => {
    const { status, said } = await subpage(['agent', ...there, '--listen', '127.0.0.1:0'])
    expect(status).toBe(exitStatus.heldElsewhere)
    expect(said).toContain('AGENT_RUNNING')
  })
})

describe('data', () => {
  test('status, for people and for programs', async () => {
    const text = await subpage(['status', ...there])
    expect([text.status, text.said]).toEqual([exitStatus.ok, ''])
    expect(text.out).toMatch(/^host here, replication \/.*\/pair\.sock, .*\nno guests\n$/)
    const json = await subpage(['status', ...there, '--json'])
    expect(json.out.trim()).not.toContain('\n')
    expect(JSON.parse(json.out)).toMatchObject({ host: 'here', pid: agent.process.pid, guests: [] })
  })

  test('where the agent is, from --state, from --api, and from the environment; the command line wins', async () => {
    const elsewhere = { SUBPAGE_STATE: join(directory, 'nowhere') }
    for (const [args, env] of [
      [there, {}],
      [['--api', apiSocket(state)], {}],
      [[], { SUBPAGE_STATE: state }],
      [[], { SUBPAGE_API: apiSocket(state) }],
      [there, elsewhere],
      [['--api', apiSocket(state)], elsewhere],
    ] as const)
      expect((await subpage(['status', ...args], env)).status, args.join(' ')).toBe(exitStatus.ok)
    expect((await subpage(['status'], elsewhere)).status).toBe(exitStatus.failed)
  })

  test('a choice from the environment is checked as one from the command line', async () => {
    const { status, said } = await subpage(['protect', 'x', ...there, '--to', 'h'], { SUBPAGE_CODEC: 'best' })
    expect(status).toBe(exitStatus.usage)
    expect(said).toMatch(/SUBPAGE_CODEC/)
  })

  test('no colours where nobody sees them, and none with NO_COLOR', async () => {
    for (const env of [{}, { NO_COLOR: '1' }])
      for (const args of [['status', ...there], ['help'], ['explode']]) {
        const { out, said } = await subpage(args, env)
        expect(out + said).not.toContain(escapeCharacter)
      }
  })

  test('a reader that has seen enough ends it quietly', async () => {
    const child = spawn(process.execPath, [mainFile, 'status', '--watch', ...there], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let said = ''
    child.stderr.on('data', (text) => {
      said += text
    })
    await once(child.stdout, 'data')
    child.stdout.destroy()
    expect(await once(child, 'close')).toEqual([exitStatus.ok, null])
    expect(said).toBe('')
  })

  test('whoever follows events is told when the agent ends', async () => {
    const own = join(directory, 'own')
    const other = await startEphemeralAgent({ stateDirectory: own, host: 'other' })
    onTestFinished(() => other.end())
    const child = spawn(process.execPath, [mainFile, 'events', '--follow', '--state', own, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let said = ''
    child.stderr.on('data', (text) => {
      said += text
    })
    // An event comes once a stranger has been refused.
    await expect
      .poll(async () => {
        await subpage(['status', '--state', own])
        connect(other.address)
          .on('error', () => undefined)
          .end('GET / HTTP/1.0\r\n\r\n')
        return child.stdout.readableLength
      })
      .toBeGreaterThan(0)
    const first = String(child.stdout.read()).split('\n')[0] ?? ''
    expect(JSON.parse(first)).toMatchObject({ kind: 'refused', guest: '' })
    child.stdout.resume()
    other.process.kill('SIGKILL')
    const [status] = await once(child, 'close')
    expect(said).not.toMatch(/^ +at /m)
    expect([exitStatus.ok, exitStatus.failed]).toContain(status)
  })
})

// Some commands read what the agent has written, others ask it: whoever may do neither is told the same by all. Only root can be
// somebody else.
test
  .runIf(process.geteuid!() === 0)
  .each([
    ['status'],
    ['wss', 'vm:web', '--for', '2s'],
    ['record', 'web', '--for', '1s', '-o', '/dev/null'],
    ['density', 'analyze', 'vm:web'],
  ])('another user may not look: %s %s', (...args) => {
  chmodSync(directory, 0o711) // what stops them is the state directory itself
  const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', '--']
  const command = [...nobody, process.execPath, mainFile, ...args, ...there]
  const { status, stderr } = spawnSync('setpriv', command, { encoding: 'utf8' })
  expect(stderr).toMatch(
    /^subpage: this user may not (open|read) \S+: run the command as the user of the agent, or name an agent of your own with --state \(AUTH_REFUSED\)\n$/,
  )
  expect(status).toBe(exitStatus.refused)
})

test('the API socket is its owner’s alone, and goes with the agent', async () => {
  expect(statSync(apiSocket(state)).mode & 0o777).toBe(0o600)
  expect(statSync(state).mode & 0o777).toBe(0o700)
})
