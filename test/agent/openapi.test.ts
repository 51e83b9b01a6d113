/**
 * The API's document, against what it describes: the routes of a real agent, its answers and refusals over TCP, the client, and the
 * command line's --json. Answers about a guest that runs are in test/guest/metrics.test.ts.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Validator } from '@seriousme/openapi-schema-validator'
import fastify from 'fastify'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { addRoutes } from '../../src/agent/api.ts'
import { AgentClient } from '../../src/agent/client.ts'
import { addDashboardRoutes, addInvitations } from '../../src/agent/dashboard.ts'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { addMetrics } from '../../src/agent/metrics-route.ts'
import { perform } from '../../src/cli/perform.ts'
import { errorTable } from '../../src/errors.ts'
import { packageRoot } from '../../src/memory/native.ts'
import { freePort } from '../support/free-port.ts'
import { answerFaults, document, documentPath, faults, operationOf, operations } from '../support/openapi.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-openapi-'))
const state = join(directory, 'agent')
const tokens = { operate: 'o'.repeat(40), read: 'r'.repeat(40) }
let agent: EphemeralAgent
let url: string

beforeAll(async () => {
  for (const [name, token] of Object.entries(tokens))
    writeFileSync(join(directory, name), token, { mode: 0o600 })
  const port = await freePort()
  url = `http://127.0.0.1:${port}`
  const env = {
    SUBPAGE_API_LISTEN: `127.0.0.1:${port}`,
    SUBPAGE_API_TOKEN_FILE: join(directory, 'operate'),
    SUBPAGE_API_READ_TOKEN_FILE: join(directory, 'read'),
  }
  agent = await startEphemeralAgent({ stateDirectory: state, host: 'here', env })
})

afterAll(async () => {
  await agent.end()
  rmSync(directory, { recursive: true })
})

/** Bodies with which each operation gets as far as looking for the guest. */
const protection = {
  epochMs: 25,
  suspicionMs: 500,
  outputs: 'held',
  tracker: 'auto',
  codec: 'masked',
} as const
const density = { recentMs: 1000, coldMs: 2000, budget: 0.01 }
const watch = { intervalMs: 1000, subIntervals: 10, budget: 0.01 }
const bodies: Record<string, object> = {
  run: { name: 'no name', ramBytes: 2 ** 26, accel: 'tcg', options: [] },
  protect: { to: '/nowhere', ...protection },
  failover: { force: false },
  densityOn: density,
  dashboard: { readOnly: true },
}

async function ask(name: string, token?: string) {
  const { method, path } = operationOf(name)
  const body = bodies[name]
  const answer = await fetch(`${url}${path.replace('{name}', 'nobody')}`, {
    method,
    signal: AbortSignal.timeout(10_000),
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body && { 'content-type': 'application/json' }),
    },
    ...(body && { body: JSON.stringify(body) }),
  })
  if (answer.headers.get('content-type') === 'text/event-stream') {
    await answer.body?.cancel()
    return { status: answer.status, body: undefined }
  }
  const text = await answer.text()
  return { status: answer.status, body: /^[[{]/.test(text) ? JSON.parse(text) : text }
}

test('it is an OpenAPI document of version 3.1, and the agent serves it', async () => {
  const { valid, errors } = await new Validator().validate(JSON.parse(readFileSync(documentPath, 'utf8')))
  expect(errors).toBeUndefined()
  expect(valid).toBe(true)
  expect(document).toMatchObject({ openapi: '3.1.0' })
  expect((await ask('document', tokens.read)).body).toEqual(document)
})

test('it has every route of an agent, and no other', () => {
  const api = fastify()
  const routes: string[] = []
  api.addHook('onRoute', ({ method, url: path }) => {
    if (method !== 'HEAD') routes.push(`${method} ${path.replace(/:(\w+)/g, '{$1}')}`)
  })
  const nobody = {} as never
  addRoutes(api, nobody)
  addMetrics(api, nobody)
  addDashboardRoutes(api, nobody, nobody)
  addInvitations(api, nobody)
  expect(routes.sort()).toEqual(operations.map(({ method, path }) => `${method} ${path}`).sort())
})

test('each operation says what it is for, and each error is of the table, with a link to what to do', () => {
  const headings = new Set(
    [...readFileSync(join(packageRoot, 'docs/errors.md'), 'utf8').matchAll(/^## (\w+)$/gm)].map(
      ([, code]) => code,
    ),
  )
  expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(operations.length)
  for (const { operationId, summary, responses } of operations) {
    expect(summary, operationId).toMatch(/\w/)
    expect(responses, operationId).toHaveProperty('200.content')
    for (const [status, { description }] of Object.entries(responses)) {
      if (status === '200' || status === 'default') continue
      const codes = [...description.matchAll(/\[(\w+)\]\(errors\.md#(\w+)\)/g)]
      expect(codes.length, `${operationId} ${status}`).toBeGreaterThan(0)
      for (const [, code, anchor] of codes) {
        expect(errorTable[code as keyof typeof errorTable].http).toBe(Number(status))
        expect(anchor).toBe(code!.toLowerCase())
        expect(headings).toContain(code)
      }
    }
  }
})

describe('a real agent', () => {
  const whole = ['status', 'recentEvents', 'density']
  test.each(whole)('%s is answered as described', async (name) => {
    const { status, body } = await ask(name, tokens.operate)
    expect(status).toBe(200)
    expect(answerFaults(name, body)).toEqual([])
  })

  const named = operations.filter(({ path }) => path.includes('{name}')).map(({ operationId }) => operationId)
  test.each(named)('%s of a guest that is not there', async (name) => {
    const { status, body } = await ask(name, tokens.operate)
    // Of domains libvirt knows, where there is one.
    if (name !== 'adopt') expect(body.code).toBe('GUEST_UNKNOWN')
    expect(status).toBeGreaterThanOrEqual(400)
    expect(answerFaults(name, body, status)).toEqual([])
  })

  test('a request of a wrong form', async () => {
    const { status, body } = await ask('run', tokens.operate)
    expect(body.code).toBe('BAD_ARGUMENT')
    expect(answerFaults('run', body, status)).toEqual([])
  })

  // The address of the dashboard is for the agent's own socket; a session asks for a token of its own.
  const open = operations.filter(({ operationId }) => !['dashboard', 'session'].includes(operationId))
  test.each(open.map(({ operationId }) => operationId))('%s by a token that may only read', async (name) => {
    const may = operationOf(name).security.some((scheme) => 'read' in scheme)
    const { status, body } = await ask(name, tokens.read)
    if (may) return expect([200, 404]).toContain(status)
    expect({ status, code: body.code }).toEqual({ status: 403, code: 'READ_ONLY' })
    expect(answerFaults(name, body, status)).toEqual([])
  })

  test('and by none', async () => {
    const { status, body } = await ask('status')
    expect({ status, code: body.code }).toEqual({ status: 401, code: 'AUTH_REFUSED' })
    expect(answerFaults('status', body, status)).toEqual([])
  })
})

test('each method of the client asks for the operation of its name, in the form that is described', async () => {
  const asked: { method: string; path: string; body: string }[] = []
  const server = createServer(async (request, reply) => {
    let body = ''
    for await (const chunk of request) body += String(chunk)
    asked.push({ method: request.method!, path: request.url!, body })
    reply.end('{}')
  })
  await new Promise<void>((resolve) => server.listen(join(directory, 'listener.sock'), resolve))
  const client = new AgentClient(join(directory, 'listener.sock'))
  const drained = async (stream: AsyncIterable<unknown>) => {
    for await (const _ of stream);
  }
  const calls: Partial<Record<keyof AgentClient, () => Promise<unknown>>> = {
    status: () => client.status(),
    guest: () => client.guest('web'),
    run: () => client.run({ ...bodies.run, disks: [], nics: [] } as never),
    adopt: () => client.adopt('web'),
    remove: () => client.remove('web', true),
    protect: () => client.protect('web', bodies.protect as never),
    unprotect: () => client.unprotect('web', true),
    failover: () => client.failover('web', true),
    switchover: () => client.switchover('web'),
    verify: () => client.verify('web'),
    cancel: () => client.cancel('web'),
    screenshot: () => client.screenshot('web'),
    dashboard: () => client.dashboard({ readOnly: true }),
    memoryMap: () => client.memoryMap('web'),
    workingSets: () => client.workingSets('web'),
    density: () => client.density(),
    densityOn: () => client.densityOn('web', density),
    densityOff: () => client.densityOff('web'),
    recentEvents: () => client.recentEvents(),
    events: () => drained(client.events()),
    startWatch: async () => await drained(await client.startWatch('web', watch)),
  }
  const methods = [...Object.keys(client), ...Object.getOwnPropertyNames(AgentClient.prototype)]
  // watchMemory is startWatch.
  const expected = methods.filter((name) => !['constructor', 'watchMemory'].includes(name))
  expect(Object.keys(calls).sort()).toEqual(expected.sort())
  try {
    for (const [name, call] of Object.entries(calls)) {
      await call()
      const { method, path, body } = asked.pop()!
      const operation = operationOf(name)
      const [where, query] = path.split('?')
      expect(`${method} ${where}`, name).toBe(
        `${operation.method} ${operation.path.replace('{name}', 'web')}`,
      )
      const schema = operation.requestBody?.content['application/json']?.schema
      expect(schema !== undefined, name).toBe(body !== '')
      if (schema) expect(faults(schema, JSON.parse(body)), name).toEqual([])
      const parameters = (operation.parameters ?? [])
        .filter((one) => one.in === 'query')
        .map((one) => one.name)
      for (const given of new URLSearchParams(query).keys()) expect(parameters, name).toContain(given)
    }
  } finally {
    server.close()
  }
})

test.each([
  ['status', 'status', []],
  ['recentEvents', 'events', []],
  ['density', 'density', ['status']],
] as const)('%s is what subpage %s --json prints', async (name, command, more) => {
  let out = ''
  const argv = [command, ...more, '--state', state, '--json']
  const sinks = { out: { write: (text: string) => (out += text) }, err: process.stderr }
  expect(await perform(argv, sinks)).toBe(0)
  const lines = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  // One line for each event.
  expect(answerFaults(name, command === 'events' ? lines : lines[0])).toEqual([])
})
