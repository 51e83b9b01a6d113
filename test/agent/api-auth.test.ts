/**
 * The agent's API from outside: the socket is for its owner alone, TCP for those who have the token, and no secret shows up
 * anywhere. Real agents, as processes.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { request } from 'node:http'
import { request as secureRequest } from 'node:https'
import { connect as connectPlain } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { AgentClient } from '../../src/agent/client.ts'
import type { TlsFiles } from '../../src/agent/credentials.ts'
import { limits } from '../../src/limits.ts'
import { packageRoot } from '../../src/memory/native.ts'
import { TestCa } from '../support/certificates.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-api-'))
const at = (...path: string[]) => join(directory, ...path)
const main = join(packageRoot, 'dist/src/cli/main.js')
const token = 'test-token-0123456789abcdef0123456789abcdef'
const wrongToken = token.replace('0', '1')
const agents: TestAgent[] = []
let ca: TestCa
let alpha: TlsFiles

function secret(name: string, text: string, mode = 0o600): string {
  writeFileSync(at(name), `${text}\n`, { mode })
  chmodSync(at(name), mode)
  return at(name)
}

interface TestAgent {
  child: ChildProcess
  client: AgentClient
  state: string
  /** Where the API listens over TCP. */
  port: number
  said: () => string
}

interface Ran {
  status: number
  stdout: string
  stderr: string
}

/** A clean environment: what the developer has set must not change the test. */
const env = (more: Record<string, string> = {}) => ({ PATH: process.env.PATH ?? '', ...more })

async function startAgent(name: string, ...flags: string[]): Promise<TestAgent> {
  const state = at(name)
  const child = spawn(process.execPath, [main, 'agent', '--ephemeral', '--state', state, ...flags], {
    env: env({ SUBPAGE_ARBITER: `file:${at('arbiter')}` }),
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text) => (said += text))
  await vi.waitFor(() => expect(said).toMatch(/: ready |subpage: /), { timeout: 20_000 })
  expect(said).toMatch(/: ready /)
  const client = new AgentClient(join(state, 'api.sock'))
  const events = JSON.stringify(await client.recentEvents())
  const agent = {
    child,
    client,
    state,
    said: () => said,
    port: Number(/API listens on \S+:(\d+)/.exec(events)?.[1]),
  }
  agents.push(agent)
  return agent
}

/** Runs the command line to its end. */
function run(...args: string[]): Promise<Ran> {
  return new Promise((resolve) =>
    execFile(
      process.execPath,
      [main, ...args],
      { env: env({ SUBPAGE_ARBITER: `file:${at('arbiter')}` }), timeout: 20_000 },
      (error, stdout, stderr) => resolve({ status: Number(error?.code ?? 0), stdout, stderr }),
    ),
  )
}

interface Answer {
  status: number
  body: { code?: string; message?: string; host?: string }
  headers: NodeJS.Dict<string | string[]>
}

function ask(
  url: string,
  headers: Record<string, string> = {},
  method = 'GET',
  body?: string,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const make = url.startsWith('https') ? secureRequest : request
    const call = make(url, { method, headers, ca: readFileSync(alpha.ca) }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk) => (text += chunk))
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          body: JSON.parse(text || 'null'),
          headers: response.headers,
        }),
      )
    })
    call.on('error', reject)
    call.end(body)
  })
}

let plain: TestAgent
let secured: TestAgent
const bearer = (text: string) => ({ authorization: `Bearer ${text}` })

beforeAll(async () => {
  mkdirSync(at('arbiter'), { mode: 0o700 })
  ca = await TestCa.make(at('ca'))
  alpha = await ca.files('alpha')
  const tokenFile = secret('token', token)
  const api = ['--api-listen', '127.0.0.1:0', '--api-token-file', tokenFile]
  plain = await startAgent('plain', ...api)
  secured = await startAgent(
    ...(['secured', ...api] as [string, ...string[]]),
    ...['--listen', '127.0.0.1:0'],
    ...['--tls-ca', alpha.ca, '--tls-cert', alpha.cert, '--tls-key', alpha.key],
  )
}, 60_000)

afterAll(async () => {
  await Promise.all(
    agents.map(async ({ child }) => {
      child.stdin?.end()
      await vi.waitFor(() => expect(child.exitCode ?? child.signalCode).not.toBeNull(), { timeout: 10_000 })
    }),
  )
  rmSync(directory, { recursive: true, force: true })
})

describe('the socket', () => {
  test('is for its owner alone, in a directory for its owner alone', () => {
    expect(statSync(join(plain.state, 'api.sock')).mode & 0o777).toBe(0o600)
    expect(statSync(plain.state).mode & 0o777).toBe(0o700)
  })

  test('whoever may not open it is told so, with a status of its own', async () => {
    const directory = at('closed')
    mkdirSync(directory)
    // Root may open everything, so the call is made by nobody.
    const script = `
      const { AgentClient } = await import(process.argv[1])
      if (process.getuid() === 0) process.setuid(65534)
      await new AgentClient(process.argv[2]).status().catch((error) => console.log(error.code + ' ' + error.message))`
    chmodSync(directory, 0)
    const client = join(packageRoot, 'dist/src/agent/client.js')
    const args = ['--input-type=module', '-e', script, client, join(directory, 'api.sock')]
    const said = spawnSync(process.execPath, args, { encoding: 'utf8', env: env() })
    chmodSync(directory, 0o700)
    expect(said.stdout).toMatch(/^AUTH_REFUSED this user may not open .*--state/)
  })

  test('a state directory that others can look into is refused', async () => {
    mkdirSync(at('open'))
    chmodSync(at('open'), 0o755)
    expect(await run('agent', '--state', at('open'))).toMatchObject({
      status: 12,
      stderr: expect.stringMatching(/chmod 700 .*open \(SECRET_EXPOSED\)/),
    })
  })

  test('a link in place of a state directory is refused', async () => {
    mkdirSync(at('target'), { mode: 0o700 })
    symlinkSync(at('target'), at('link'))
    expect(await run('agent', '--state', at('link'))).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/is a link, not a directory/),
    })
  })
})

describe('there is a limit to', () => {
  const post = (bytes: number) => {
    const body = JSON.stringify({ name: 'x' }).padEnd(bytes, ' ')
    const headers = { ...bearer(token), 'content-type': 'application/json' }
    return ask(`http://127.0.0.1:${plain.port}/v1/guests`, headers, 'POST', body)
  }

  test('the body of a request', async () => {
    expect((await post(limits.apiBodyBytes.value)).status).toBe(400)
    expect((await post(limits.apiBodyBytes.value + 1)).status).toBe(413)
  })

  test('the connections over TCP; those that are there are served on', async () => {
    const sockets = await Promise.all(
      Array.from({ length: limits.apiConnections.value + 1 }, async () => {
        const socket = connectPlain(plain.port, '127.0.0.1').on('error', () => undefined)
        await once(socket, 'connect')
        return socket.resume()
      }),
    )
    await vi.waitFor(() => expect(sockets.filter(({ closed }) => closed)).toHaveLength(1))
    const served = sockets.find(({ closed }) => !closed)!
    served.write(`GET /v1/status HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n\r\n`)
    expect(String((await once(served, 'data'))[0])).toContain('200 OK')
    for (const socket of sockets) socket.destroy()
    // The places are free again.
    await vi.waitFor(async () => expect((await post(64)).status).toBe(400))
  })
})

describe('over TCP', () => {
  const url = (agent: TestAgent, path = '/v1/status') =>
    `${agent === secured ? 'https' : 'http'}://127.0.0.1:${agent.port}${path}`

  for (const which of ['plain', 'secured'] as const) {
    const agentOf = () => (which === 'plain' ? plain : secured)

    test(`whoever has the token is answered (${which})`, async () => {
      const { status, body } = await ask(url(agentOf()), bearer(token))
      expect(status).toBe(200)
      expect(body.host).toBeTypeOf('string')
    })

    const without: [what: string, headers: Record<string, string>][] = [
      ['no token', {}],
      ['a wrong token', bearer(wrongToken)],
      ['a prefix of the token', bearer(token.slice(0, -1))],
      ['more than the token', bearer(`${token}x`)],
      ['the token, otherwise given', { authorization: `Basic ${token}` }],
      ['an empty token', bearer('')],
    ]
    for (const [what, headers] of without)
      test(`${what} is refused (${which})`, async () => {
        const { status, body, headers: said } = await ask(url(agentOf()), headers)
        expect(status).toBe(401)
        expect(body.code).toBe('AUTH_REFUSED')
        expect(said['www-authenticate']).toBe('Bearer')
        expect(JSON.stringify(body)).not.toContain(token.slice(0, 12))
      })
  }

  test('no route is open, known or unknown', async () => {
    const routes: [string, string][] = [
      ['GET', '/v1/events'],
      ['GET', '/v1/events/stream'],
      ['GET', '/v1/guests/x'],
      ['DELETE', '/v1/guests/x'],
      ['POST', '/v1/guests'],
      ['POST', '/v1/guests/x/failover'],
      ['GET', '/v1/nothing'],
      ['HEAD', '/'],
      ['GET', '/index.html'],
      ['GET', '/v1/session'],
      ['POST', '/v1/session'],
      ['GET', '/v1/status/stream'],
      ['GET', '/v1/guests/x/history'],
      ['GET', '/metrics'],
      ['POST', '/'],
      ['GET', '/v1/../v1/status'],
      ['OPTIONS', '/v1/status'],
    ]
    const answers = await Promise.all(routes.map(([method, path]) => ask(url(plain, path), {}, method)))
    expect(answers.map(({ status }) => status)).toEqual(routes.map(() => 401))
  })

  test('of the dashboard the page is open, which is the same for everybody, and no other file', async () => {
    const page = await fetch(url(plain, '/'))
    expect([page.status, await page.text()]).toEqual([200, expect.stringContaining('<title>subpage</title>')])
    expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'; script-src 'self'; /)
    for (const path of [
      '/assets/../../../package.json',
      '/assets/..%2f..%2fpackage.json',
      '/assets/../v1/status',
      '/assets/x',
    ])
      expect([404, 403, 401]).toContain(await statusOf(path))
  })

  /** As it is, without what fetch makes of a path. */
  const statusOf = (path: string) =>
    new Promise<number>((resolve, reject) =>
      request({ host: '127.0.0.1', port: plain.port, path }, (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      })
        .on('error', reject)
        .end(),
    )

  test('guesses wait for one another', async () => {
    const startedAt = performance.now()
    await Promise.all([1, 2, 3].map(() => ask(url(plain), bearer(wrongToken))))
    expect(performance.now() - startedAt).toBeGreaterThan(600)
  })

  test('a body that is too large is refused', async () => {
    const body = JSON.stringify({ name: 'x'.repeat(300 * 1024) })
    const headers = { ...bearer(token), 'content-type': 'application/json' }
    expect(await ask(url(plain, '/v1/guests'), headers, 'POST', body)).toMatchObject({
      status: 413,
      body: { code: 'BAD_ARGUMENT' },
    })
  })

  test('TLS 1.2 is not spoken', async () => {
    const old = connect({
      host: '127.0.0.1',
      port: secured.port,
      maxVersion: 'TLSv1.2',
      rejectUnauthorized: false,
    })
    const code = await new Promise((resolve) =>
      old.once('error', (error: NodeJS.ErrnoException) => resolve(error.code)),
    )
    expect(code).toMatch(/PROTOCOL_VERSION/)
  })
})

describe('the command line', () => {
  const remote = (agent: TestAgent) => `https://127.0.0.1:${agent.port}`

  test('speaks to a remote API with token and CA', async () => {
    const ran = await run(
      ...[
        'status',
        '--json',
        '--api',
        remote(secured),
        '--api-token-file',
        at('token'),
        '--tls-ca',
        alpha.ca,
      ],
    )
    expect(ran).toMatchObject({ status: 0, stderr: '' })
    expect(JSON.parse(ran.stdout)).toMatchObject({ host: 'alpha' })
  })

  test('a wrong token ends with status 12', async () => {
    const wrong = secret('wrong', wrongToken)
    const ran = await run('status', '--api', remote(secured), '--api-token-file', wrong, '--tls-ca', alpha.ca)
    expect(ran).toMatchObject({ status: 12, stdout: '', stderr: expect.stringMatching(/AUTH_REFUSED/) })
  })

  const mistakes: [what: string, args: () => string[], status: number, reason: RegExp][] = [
    ['no token file', () => ['--api', remote(secured)], 2, /give --api-token-file/],
    [
      'clear text beyond this machine',
      () => ['--api', 'http://192.0.2.1:1', '--api-token-file', at('token')],
      12,
      /clear text.*TLS_REQUIRED/,
    ],
    [
      'a CA that is not the agent’s',
      () => ['--api', remote(secured), '--api-token-file', at('token')],
      12,
      /not of the CA.*AUTH_REFUSED/,
    ],
    ['no URL', () => ['--api', 'https://', '--api-token-file', at('token')], 2, /https:\/\/HOST:PORT/],
  ]
  for (const [what, args, status, reason] of mistakes)
    test(`${what} is explained`, async () => {
      expect(await run('status', ...args())).toMatchObject({ status, stderr: expect.stringMatching(reason) })
    })
})

describe('a start that would be unsafe is refused', () => {
  const starts: [what: string, flags: () => string[], reason: RegExp][] = [
    [
      'a token that others can read',
      () => ['--api-token-file', secret('t1', token, 0o644)],
      /chmod 600.*SECRET_EXPOSED/,
    ],
    ['a short token', () => ['--api-token-file', secret('t2', 'short')], /at least 32/],
    ['no token file', () => [], /needs --api-token-file/],
    [
      'the network without TLS',
      () => ['--api-listen', '0.0.0.0:0', '--api-token-file', at('token')],
      /show its token.*TLS_REQUIRED/,
    ],
    [
      'replication with the network without TLS',
      () => ['--listen', '192.0.2.1:0', '--api-token-file', at('token')],
      /subpage cert.*TLS_REQUIRED/,
    ],
    ['a part of the certificate', () => ['--tls-ca', alpha.ca, '--api-token-file', at('token')], /together/],
    [
      'another name than that of the certificate',
      () => [
        ...['--host', 'beta', '--tls-ca', alpha.ca, '--tls-cert', alpha.cert, '--tls-key', alpha.key],
        ...['--listen', '127.0.0.1:0', '--api-token-file', at('token')],
      ],
      /certificate is for alpha/,
    ],
  ]
  for (const [what, flags, reason] of starts)
    test(what, async () => {
      const ran = await run(...['agent', '--state', at('refused'), '--api-listen', '127.0.0.1:0'], ...flags())
      // It ends, whatever it had begun.
      expect(ran).toMatchObject({ stderr: expect.stringMatching(reason) })
      expect([2, 12]).toContain(ran.status)
    })
})

test('no secret shows up in output, events, status, arguments or environment', async () => {
  const key = readFileSync(alpha.key, 'utf8').split('\n')[1] ?? ''
  expect(key.length).toBeGreaterThan(20)
  const seen: string[] = []
  for (const { child, client, said } of [plain, secured]) {
    seen.push(said(), JSON.stringify(await client.status()), JSON.stringify(await client.recentEvents()))
    for (const file of ['cmdline', 'environ']) seen.push(readFileSync(`/proc/${child.pid}/${file}`, 'latin1'))
  }
  for (const text of seen) for (const word of [token, key, 'PRIVATE KEY']) expect(text).not.toContain(word)
})
