/**
 * Who is told of events: real programs and a real web server, which checks the signature as Standard Webhooks has it. A failover that a
 * program hears of is in test/guest/failover.test.ts.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, expect, test } from 'vitest'
import { startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { EventLog } from '../../src/agent/event-log.ts'
import { notify, openChannels } from '../../src/agent/notifications.ts'
import { limits } from '../../src/limits.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-notify-'))
const secretFile = join(directory, 'secret')
const key = Buffer.from('0123456789abcdef0123456789abcdef')
writeFileSync(secretFile, `whsec_${key.toString('base64')}`, { mode: 0o600 })
const servers: Server[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
})
afterAll(() => rmSync(directory, { recursive: true }))

function program(name: string, script: string): string {
  const path = join(directory, name)
  writeFileSync(path, `#!/bin/sh\n${script}\n`)
  chmodSync(path, 0o755)
  return path
}

/** Answers one request after the other with these statuses, then with 200. */
async function webhook(...statuses: number[]) {
  const asked: { headers: IncomingHttpHeaders; body: string }[] = []
  const server = createServer(async (request, reply) => {
    let body = ''
    for await (const chunk of request) body += String(chunk)
    asked.push({ headers: request.headers, body })
    reply.writeHead(statuses.shift() ?? 200).end()
  })
  servers.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  return { url: `http://127.0.0.1:${port}/events`, asked }
}

function signedRight({ headers, body }: { headers: IncomingHttpHeaders; body: string }): boolean {
  const of = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`
  const expected = `v1,${createHmac('sha256', key).update(of).digest('base64')}`
  return timingSafeEqual(Buffer.from(expected), Buffer.from(String(headers['webhook-signature'])))
}

const begin = (options: Parameters<typeof openChannels>[0], log = new EventLog(), since = '') => {
  notify(log, 'alpha', openChannels(options), since)
  return log
}

test('an agent tells a program and a webhook what its API has as an event', async () => {
  const heard = join(directory, 'heard')
  // It waits for its input before anything shows.
  const path = program(
    'tell',
    `json=$(cat); printf '%s\\n' "$1" "$2" "$3" "$json" "$SUBPAGE_ETCD_PASSWORD." > ${heard}.part; mv ${heard}.part ${heard}`,
  )
  const { url, asked } = await webhook()
  const agent = await startEphemeralAgent({
    stateDirectory: join(directory, 'agent'),
    host: 'alpha',
    env: {
      SUBPAGE_ON_EVENT: path,
      SUBPAGE_WEBHOOK: url,
      SUBPAGE_WEBHOOK_SECRET_FILE: secretFile,
      SUBPAGE_ETCD_PASSWORD: 'of-the-agent',
    },
  })
  try {
    connect(agent.address)
      .on('error', () => undefined)
      .end('GET / HTTP/1.0\r\n\r\n')
    await expect.poll(() => existsSync(heard)).toBe(true)
    await expect.poll(() => asked.length).toBe(1)
    const [event] = await agent.client.recentEvents()
    const [kind, guest, text, json, password] = readFileSync(heard, 'utf8').split('\n')
    expect([kind, guest, text, password]).toEqual(['refused', '', event!.text, '.'])
    expect(JSON.parse(json!)).toEqual({ host: 'alpha', ...event })
    expect(JSON.parse(asked[0]!.body)).toEqual({ host: 'alpha', ...event })
    expect(signedRight(asked[0]!)).toBe(true)
    expect(Math.abs(Number(asked[0]!.headers['webhook-timestamp']) - Date.now() / 1000)).toBeLessThan(300) // The wall clock, as receivers look at it.
  } finally {
    await agent.end()
  }
})

test('a request that failed is made again, with the id of the first', async () => {
  const { url, asked } = await webhook(503)
  const log = begin({ webhook: { url, secretFile } })
  log.add('web', 'failover', 'took over')
  await expect.poll(() => asked.length).toBe(2)
  expect(new Set(asked.map(({ headers }) => headers['webhook-id'])).size).toBe(1)
  expect(asked.every(signedRight)).toBe(true)
  expect(log.recent()).toHaveLength(1)
})

test('one that is refused for good is not; an event says so, and is told to nobody', async () => {
  const { url, asked } = await webhook(410)
  const log = begin({ webhook: { url, secretFile } })
  log.add('web', 'failover', 'took over')
  await expect
    .poll(() => log.recent().at(-1)!.text)
    .toMatch(/^notifications: an event was not told: the webhook \S+: it answered with status 410$/)
  log.add('web', 'guest', 'another one')
  await expect.poll(() => asked.length).toBe(2)
  expect(JSON.parse(asked[1]!.body).text).toBe('another one')
})

test('so many programs run at once, so many events wait, and what is lost is said', async () => {
  const ran = mkdtempSync(join(directory, 'ran-'))
  const going = join(directory, 'go')
  const path = program('slow', `touch ${ran}/$3; while [ ! -e ${going} ]; do sleep 0.02; done`)
  const log = begin({ program: path })
  const [atOnce, waiting] = [limits.notificationsAtOnce, limits.notificationsWaiting]
  const lost = 7
  const all = atOnce.value + waiting.value + lost
  for (let i = 0; i < all; i++) log.add('web', 'guest', String(i))
  await expect.poll(() => readdirSync(ran).length).toBe(atOnce.value)
  expect(readdirSync(ran).sort()).toEqual(['0', '1', '2', '3'])
  writeFileSync(going, '')
  await expect.poll(() => readdirSync(ran).length).toBe(all - lost)
  // The oldest of those that waited.
  expect(existsSync(join(ran, '4'))).toBe(false)
  expect(existsSync(join(ran, String(all - 1)))).toBe(true)
  expect(log.recent().map(({ text }) => text)).toContain(
    `notifications: too many events at once: ${lost} were not told`,
  )
})

test('a program that fails is said; what happened before is not told', async () => {
  const log = new EventLog()
  log.add('web', 'guest', 'of another agent')
  const heard = join(directory, 'failing')
  begin({ program: program('fail', `printf '%s\\n' "$3" >> ${heard}; exit 3`) }, log, '9999')
  log.pass({ time: '9999-01-01', guest: 'web', kind: 'guest', text: 'of this one' })
  await expect
    .poll(() => log.recent().at(-1)!.text)
    .toMatch(/an event was not told: \S+fail ended with status 3$/)
  expect(readFileSync(heard, 'utf8')).toBe('of this one\n')
})

test.each([
  ['BAD_ARGUMENT', { program: 'relative' }],
  ['BAD_ARGUMENT', { program: '/nowhere/program' }],
  ['BAD_ARGUMENT', { webhook: { url: 'ftp://x/', secretFile } }],
  ['TLS_REQUIRED', { webhook: { url: 'http://192.0.2.1/', secretFile } }],
  ['BAD_ARGUMENT', { webhook: { url: 'https://x/', secretFile: '/nowhere/secret' } }],
] as const)('%s: %j', (code, options) => {
  expect(() => openChannels(options)).toThrow(expect.objectContaining({ code }))
})
