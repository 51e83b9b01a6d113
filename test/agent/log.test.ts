/**
 * The log of an agent: lines of JSON on standard error with the events of the API, by level, with priorities in a journal and text at a
 * terminal; and no secret in any of them. That a supervisor's has no more is in test/guest/supervisor.test.ts.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, expect, test } from 'vitest'
import { pairSocket } from '../../src/agent/address.ts'
import { AgentClient } from '../../src/agent/client.ts'
import { createLog, isLogged, withoutLog, writeBounded } from '../../src/agent/log.ts'
import { apiSocket } from '../../src/agent/state-directory.ts'
import { limits } from '../../src/limits.ts'
import { mainFile } from '../support/subpage.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-log-'))
const secrets = {
  token: `token-${'t'.repeat(40)}`,
  read: `read-${'r'.repeat(40)}`,
  wrong: `wrong-${'w'.repeat(40)}`,
  vnc: 'sesame',
  etcd: 'etcd-password-of-some-length',
}
const children: ChildProcess[] = []
afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill('SIGTERM')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
})
afterAll(() => rmSync(directory, { recursive: true }))

let started = 0

/** @param journal the log's file is what JOURNAL_STREAM names @returns what it logs, read from its file */
async function agent({ flags = [], journal = false }: { flags?: string[]; journal?: boolean } = {}) {
  const state = join(directory, `agent-${started++}`)
  const file = `${state}.log`
  const log = openSync(file, 'w')
  const { dev, ino } = fstatSync(log, { bigint: true })
  const child = spawn(process.execPath, [mainFile, 'agent', '--state', state, ...flags], {
    stdio: ['ignore', 'pipe', log],
    env: {
      ...process.env,
      JOURNAL_STREAM: journal ? `${dev}:${ino}` : `${dev}:1`,
      SUBPAGE_ETCD_PASSWORD: secrets.etcd,
      SUBPAGE_ARBITER: `file:${directory}`,
    },
  })
  closeSync(log)
  children.push(child)
  let printed = ''
  child.stdout!.setEncoding('utf8').on('data', (text) => (printed += text))
  const lines = () => readFileSync(file, 'utf8').split('\n').slice(0, -1)
  await expect.poll(lines).toContainEqual(expect.stringMatching(/: ready /))
  const client = new AgentClient(apiSocket(state))
  /** Has something happen: a stranger is refused. */
  const refuse = () =>
    void connect(pairSocket(state))
      .on('error', () => undefined)
      .end('GET / HTTP/1.0\r\n\r\n')
  return { child, client, lines, refuse, printed: () => printed }
}

test('each event of the API is a line of JSON, and standard output stays empty', async () => {
  const { client, lines, refuse, printed } = await agent()
  refuse()
  const logged = () => lines().map((line) => JSON.parse(line))
  await expect.poll(logged).toContainEqual(expect.objectContaining({ level: 'warn', kind: 'refused' }))
  const [event] = (await client.recentEvents()).slice(-1)
  const { time, kind, text } = event!
  expect(logged().at(-1)).toEqual({
    ...{ level: 'warn', program: 'agent', process: expect.any(Number) },
    ...{ time, kind, message: text },
  })
  expect(logged().find((line) => line.kind === 'ready')).toMatchObject({
    level: 'info',
    host: expect.any(String),
  })
  expect(printed()).toBe('')
})

test('in a journal each line has its priority; debug has the requests, without their queries', async () => {
  const { client, lines, refuse } = await agent({ journal: true, flags: ['--log-level', 'debug'] })
  refuse()
  await expect(client.unprotect('nobody', true)).rejects.toMatchObject({ code: 'GUEST_UNKNOWN' })
  await expect.poll(lines).toContainEqual(expect.stringMatching(/^<4>\{"level":"warn".*"kind":"refused"/))
  await expect.poll(lines).toContainEqual(expect.stringMatching(/^<6>\{"level":"info".*"kind":"ready"/))
  await expect.poll(lines).toContainEqual(expect.stringContaining('unprotect'))
  const request = lines().find((line) => line.includes('unprotect'))
  expect(request).toMatch(/^<7>\{"level":"debug"/)
  expect(JSON.parse(request!.slice(3))).toMatchObject({
    ...{ kind: 'request', method: 'POST', path: '/v1/guests/nobody/unprotect', status: 404 },
  })
  for (const line of lines()) expect(line).toMatch(/^<[3467]>\{.*\}$/)
})

test('--log-level error has no event that is less', async () => {
  const state = join(directory, 'quiet')
  const child = spawn(
    process.execPath,
    [mainFile, 'agent', '--ephemeral', '--state', state, '--log-level', 'error', '--json'],
    { stdio: ['pipe', 'pipe', 'pipe'] },
  )
  children.push(child)
  let [printed, said] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text) => (printed += text))
  child.stderr.setEncoding('utf8').on('data', (text) => (said += text))
  // With --json standard output is for programs, as ever.
  await expect.poll(() => printed).toMatch(/^\{"ready":/)
  connect(pairSocket(state))
    .on('error', () => undefined)
    .end('GET / HTTP/1.0\r\n\r\n')
  await expect.poll(() => printed).toMatch(/"kind":"refused"/)
  expect(said).toBe('')
})

test('at a terminal it is text, for people', async () => {
  const state = join(directory, 'terminal')
  const command = `exec ${process.execPath} ${mainFile} agent --ephemeral --state ${state}`
  const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore'] })
  children.push(child)
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text) => (said += text))
  await expect.poll(() => said).toMatch(/^subpage agent \S+: ready/m)
  connect(pairSocket(state))
    .on('error', () => undefined)
    .end('GET / HTTP/1.0\r\n\r\n')
  await expect.poll(() => said).toMatch(/^\S+ - refused: a connection from/m)
  expect(said).not.toContain('"level"')
})

test('no secret is in it, whatever is asked', async () => {
  const file = (name: keyof typeof secrets) => {
    writeFileSync(join(directory, name), secrets[name], { mode: 0o600 })
    return join(directory, name)
  }
  const { client, lines } = await agent({
    flags: [
      ...['--log-level', 'debug', '--api-listen', '127.0.0.1:0'],
      ...['--api-token-file', file('token'), '--api-read-token-file', file('read')],
    ],
  })
  const listens = /listens on (\S+)/.exec(JSON.stringify(await client.recentEvents()))![1]!.replace(/".*/, '')
  const ask = async (path: string, secret: string, body?: object) => {
    const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' }
    const init = body ? { method: 'POST', body: JSON.stringify(body) } : {}
    return (await fetch(`http://${listens}${path}`, { ...init, headers })).status
  }
  const guest = { name: 'web', ramBytes: 2 ** 26, accel: 'tcg', options: [] }
  const vnc = { address: '127.0.0.1', password: secrets.vnc }
  expect(await ask(`/v1/status?token=${secrets.token}`, secrets.token)).toBe(200)
  expect(await ask('/v1/status', secrets.wrong)).toBe(401)
  expect(await ask('/v1/guests', secrets.read, { ...guest, vnc })).toBe(403)
  // Of a wrong form, and refused by the guest's supervisor.
  expect(await ask('/v1/guests', secrets.token, { ...guest, ramBytes: 'much', vnc })).toBe(400)
  expect(await ask('/v1/guests', secrets.token, { ...guest, options: ['-no-such'], vnc })).toBeGreaterThan(
    400,
  )
  const { url } = await client.dashboard({ readOnly: false })
  expect(await ask('/v1/session', url.split('#')[1]!, {})).toBe(200)
  await expect.poll(() => lines().join('\n')).toMatch(/\/v1\/session/)
  const said = lines().join('\n')
  for (const secret of [...Object.values(secrets), url.split('#')[1]!]) expect(said).not.toContain(secret)
})

test("a supervisor's file begins anew at its limit, and what it says at its end is told from its log", () => {
  const path = join(directory, 'bounded.log')
  const fd = openSync(path, 'a+')
  const said: string[] = []
  const log = createLog({
    ...{ level: 'info', fields: { program: 'supervisor' }, journal: false },
    write: (text) => {
      said.push(text)
      writeBounded(fd, text)
    },
  })
  const line = 'x'.repeat(4096)
  for (let written = 0; written < 3 * limits.supervisorLogBytes.value; written += line.length) {
    log.info(line)
    expect(fstatSync(fd).size).toBeLessThanOrEqual(limits.supervisorLogBytes.value)
  }
  expect(readFileSync(path, 'utf8').endsWith(said.at(-1)!)).toBe(true)
  closeSync(fd)
  expect(withoutLog(`${said[0]}Error: boom\n    at x\n`)).toBe('Error: boom\n    at x\n')
})

test('levels', () => {
  const event = { time: '', guest: '', text: '' }
  expect(isLogged({ ...event, kind: 'failover' }, 'warn')).toBe(true)
  expect(isLogged({ ...event, kind: 'protection' }, 'warn')).toBe(false)
  expect(isLogged({ ...event, kind: 'protection' }, 'debug')).toBe(true)
  const { status, stderr } = spawnSync(process.execPath, [mainFile, 'agent', '--log-level', 'loud'], {
    encoding: 'utf8',
  })
  expect([status, stderr]).toEqual([2, expect.stringMatching(/Allowed choices are error, warn, info, debug/)])
})
