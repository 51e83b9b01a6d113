/**
 * Every command of the table × every failure that any command can meet: a known code, the exit status that the table of errors
 * gives it, one line for people or JSON for programs, and never a stack or INTERNAL. A new command is in it by itself.
 *
 * Commands run in this process, all but those whose outputs are closed or full: they are real ones.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { type Command, flagName, isSwitch } from '../../src/cli/command.ts'
import { commands } from '../../src/cli/commands.ts'
import { perform } from '../../src/cli/perform.ts'
import { type ErrorCode, errorTable, exitStatus } from '../../src/errors.ts'
import { mainFile } from '../support/subpage.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-matrix-'))
const state = join(directory, 'agent')
const nobodyThere = join(directory, 'no-agent')
const image = join(directory, 'image')
let agent: EphemeralAgent

beforeAll(async () => {
  agent = await startEphemeralAgent({ stateDirectory: state, host: 'here' })
  mkdirSync(nobodyThere)
  writeFileSync(image, new Uint8Array(8192))
}, 60_000)

afterAll(async () => {
  await agent.end()
  rmSync(directory, { recursive: true })
})

const named = (name: string) => commands.find((command) => command.name === name)!
const has = (command: Command, flag: string) => command.flags.some((one) => flagName(one) === flag)
/** They ask an agent; `agent` is one, and a bundle has what there is without it. */
const asking = commands.filter(
  (command) => !['agent', 'support-bundle'].includes(command.name) && has(command, 'state'),
)

/** What a command needs beside the guest's name to get as far as the agent, or its files. */
const more: Record<string, string[]> = {
  protect: ['--to', '/tmp'],
  record: ['-o', join(directory, 'trace')],
  screenshot: ['-o', join(directory, 'picture')],
  'support-bundle': ['-o', join(directory, 'bundle')],
}
/** Where the first argument is no guest. */
const first: Record<string, string[]> = { density: ['off', 'nobody'], record: ['vm:nobody'] }

const targetOf = (command: Command) => first[command.name] ?? (command.args.length > 0 ? ['nobody'] : [])
const lineFor = (command: Command, at: string) => [
  command.name,
  ...targetOf(command),
  ...(more[command.name] ?? []),
  '--state',
  at,
]

async function run(argv: string[]): Promise<{ status: number; out: string; said: string }> {
  let [out, said] = ['', '']
  const status = await perform(argv, {
    out: { write: (text) => (out += text) },
    err: { write: (text) => (said += text) },
  })
  return { status, out, said }
}

/** The code that was said. */
function expectKnown(status: number | null, said: string): ErrorCode {
  expect(said).not.toMatch(/INTERNAL|^\s+at /m)
  const found = /^subpage: [^\n]+ \(([A-Z_]+)\)\n$/.exec(said)
  expect(said, 'one line with a code').toSatisfy(() => found !== null)
  const code = found![1] as ErrorCode
  expect(errorTable).toHaveProperty(code)
  expect(status).toBe(errorTable[code].exit)
  return code
}

/** The same for programs. */
function expectKnownJson(status: number | null, said: string): ErrorCode {
  const lines = said
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  const { code, message } = lines.at(-1)
  expect(errorTable).toHaveProperty(code)
  expect(code).not.toBe('INTERNAL')
  expect(message).toMatch(/\w/)
  expect(status).toBe(errorTable[code as ErrorCode].exit)
  return code
}

const people = { name: 'people', flags: [] as string[], expects: expectKnown }
const programs = { name: 'programs', flags: ['--json'], expects: expectKnownJson }

describe.each([people, programs])('for $name', ({ flags, expects }) => {
  test.each(asking.map(({ name }) => name))('%s, and no agent runs', async (name) => {
    const { status, out, said } = await run([...lineFor(named(name), nobodyThere), ...flags])
    expect(['AGENT_UNREACHABLE', 'GUEST_UNKNOWN']).toContain(expects(status, said))
    expect(out).toBe('')
  })

  test.each(asking.filter((command) => targetOf(command).length > 0).map(({ name }) => name))(
    '%s, and there is no such guest',
    async (name) => {
      // Starting one is the only thing that needs none.
      if (name === 'run') return expect(named(name).rest).toBeDefined()
      const { status, out, said } = await run([...lineFor(named(name), state), ...flags])
      expect(expects(status, said)).toBe('GUEST_UNKNOWN')
      expect(out).toBe('')
    },
  )

  test.each(commands.map(({ name }) => name))('%s, and an option that there is not', async (name) => {
    const { status, out, said } = await run([name, ...targetOf(named(name)), '--no-such-option', ...flags])
    expect([status, out]).toEqual([exitStatus.usage, ''])
    expect(said).toContain("unknown option '--no-such-option'")
    expect(said).not.toMatch(/^\s+at /m)
    if (flags.length > 0) expects(status, said)
  })
})

/** A value that no option can mean; those that take any text are named. */
const anyText = ['state', 'out', 'host', 'trustDomain', 'arbiterUser', 'only']
const values = commands.flatMap((command) =>
  command.flags
    .filter((flag) => !isSwitch(flag) && !anyText.includes(flagName(flag)))
    .map((flag) => [command.name, `--${/--([a-z-]+)/.exec(flag.form)![1]}`]),
)
/** What has a command reach each of its options; nothing can be started with these. */
const reaching: Record<string, string[]> = {
  agent: ['--state', '/proc/none'],
  cert: ['host', 'nobody', '--ca', '/proc/none', '--out', '/proc/none'],
  libvirt: ['list'],
  record: ['pid:999999999', '-o', '/proc/none/trace'],
  report: ['/proc/none'],
  study: ['nobody'],
  'support-bundle': ['-o', join(directory, 'bundle'), '--api', join(nobodyThere, 'api.sock')],
}

test.each(values)('%s %s with a value that it cannot mean', async (name, option) => {
  const command = named(name!)
  const line = reaching[name!] ?? lineFor(command, nobodyThere)
  const { status, said } = await run([
    name!,
    ...(line[0] === name ? line.slice(1) : line),
    option!,
    '\u2603/\u2603',
  ])
  expect(said).not.toMatch(/INTERNAL|^\s+at /m)
  // A choice that there is not is told with those that there are.
  if (/^error: /.test(said)) expect(status).toBe(exitStatus.usage)
  else expectKnown(status, said)
})

/** Each option that names a place to write, of each command that has one. */
const writing: [string, string[]][] = [
  ['record', ['images', image, '-o', '/proc/none/trace']],
  ['screenshot', ['nobody', '-o', '/proc/none/picture']],
  ['support-bundle', ['-o', '/proc/none/bundle']],
  ['report', [image, '--html', '/proc/none/page.html']],
  ['report', [image, '--csv', '/proc/none/csv']],
  ['wss', [`pid:${process.pid}`, '--html', '/proc/none/page.html']],
  ['wss', [`pid:${process.pid}`, '--csv', '/proc/none/csv']],
  ['study', ['amplification', '--html', '/proc/none/page.html']],
  ['study', ['amplification', '--csv', '/proc/none/csv']],
  ['cert', ['ca', '--out', '/proc/none/ca']],
]

test('all places to write are tried', () => {
  const places = commands.flatMap(({ name, flags }) =>
    flags.flatMap((flag) => {
      const option = flagName(flag)
      return ['output', 'html', 'csv', 'out'].includes(option) ? [`${name} ${option[0]}`] : []
    }),
  )
  const tried = writing.map(([name, args]) => `${name} ${args.at(-2)!.replace(/^-+/, '')[0]}`)
  expect([...new Set(tried)].sort()).toEqual([...new Set(places)].sort())
})

test.each(writing)('%s %j: that cannot be written', async (name, args) => {
  const { status, out, said } = await run([name, ...args])
  expect(['OUTPUT_FAILED', 'BAD_ARGUMENT', 'NO_SPACE']).toContain(expectKnown(status, said))
  expect(out).toBe('')
})

/** Lines that print something, with the agent that runs. */
const printing: Record<string, string[]> = {
  check: [],
  status: ['--state', state],
  events: ['--state', state],
  drain: ['--state', state],
  density: ['analyze', image],
  study: [],
  record: ['images', image, image, '-o', '/dev/null'],
  wss: [`pid:${process.pid}`, '--for', '100ms', '--interval', '50ms'],
}

/** Two at a time: they are short, and mostly start. */
async function real(name: string, stdout: 'closed' | 'full') {
  const child = spawn(process.execPath, [mainFile, name, ...printing[name]!], {
    stdio: ['ignore', stdout === 'full' ? openSync('/dev/full', 'w') : 'pipe', 'pipe'],
  })
  child.stdout?.destroy()
  let said = ''
  child.stderr!.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  const [status] = await once(child, 'close')
  return { status, said }
}

describe.concurrent('standard output', () => {
  test.for(Object.keys(printing))('of %s has no reader', async (name, { expect }) => {
    const { status, said } = await real(name, 'closed')
    expect(said).not.toMatch(/INTERNAL|^\s+at |EPIPE/m)
    expect([exitStatus.ok, exitStatus.interrupted]).toContain(status)
  })

  test.for(Object.keys(printing).filter((name) => name !== 'events'))(
    'of %s is full',
    async (name, { expect }) => {
      const { status, said } = await real(name, 'full')
      expect(said).not.toMatch(/INTERNAL|^\s+at /m)
      expect(said).toMatch(/standard output cannot be written: .* \(NO_SPACE\)\n$/)
      expect(status).toBe(errorTable.NO_SPACE.exit)
    },
  )
})
