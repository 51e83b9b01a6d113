/** Whoever follows the events and does not read them is dropped; whoever reads gets all of them. */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { buildApi } from '../../src/agent/api.ts'
import { EventLog } from '../../src/agent/event-log.ts'
import { outstandingBytesMax } from '../../src/agent/event-stream.ts'
import type { GuestApi } from '../../src/agent/guest-api.ts'
import { connect } from '../../src/index.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-events-'))
const path = join(folder, 'api.sock')
const events = new EventLog()
// Of an agent the stream needs its log alone.
const api = buildApi({ follow: (listener) => events.follow(listener) } as GuestApi)

beforeAll(async () => {
  await api.ready()
  api.server.listen(path)
  await once(api.server, 'listening')
})
afterAll(async () => {
  await api.close()
  rmSync(folder, { recursive: true, force: true })
})

async function follow(): Promise<Socket> {
  const socket = createConnection(path)
  await once(socket, 'connect')
  const heard = events.listenerCount('event')
  socket.write('GET /v1/events/stream HTTP/1.1\r\nHost: agent\r\n\r\n')
  await expect.poll(() => events.listenerCount('event')).toBe(heard + 1)
  return socket
}

test('a client that does not read is dropped, and the one beside it misses nothing', async () => {
  const deaf = await follow()
  deaf.pause()
  const reader = await follow()
  let got = ''
  reader.setEncoding('utf8').on('data', (text) => {
    got += text
  })
  const text = 'x'.repeat(1_900)
  const count = Math.ceil((2 * outstandingBytesMax) / text.length)
  let most = 0
  for (let n = 0; n < count; n++) {
    events.add('', 'guest', `${n} ${text}`)
    // The one that reads gets its turn.
    if (n % 100 === 0) await new Promise(setImmediate)
    most = Math.max(most, events.listenerCount('event'))
  }
  await expect.poll(() => events.listenerCount('event')).toBe(1)
  expect(most).toBe(2)
  await expect.poll(() => got.includes(`${count - 1} ${text}`)).toBe(true)
  for (const n of [0, Math.floor(count / 2), count - 1]) expect(got).toContain(`"${n} x`)
  // Dropped, so it hears the end once it reads.
  const ended = once(deaf, 'close')
  deaf.on('error', () => undefined).resume()
  await ended
  reader.destroy()
  await expect.poll(() => events.listenerCount('event')).toBe(0)
})

test('the iterator of a client has what was and what comes, and leaves nothing behind when the loop ends', async () => {
  events.add('', 'guest', 'before')
  const seen: string[] = []
  for await (const { text } of connect({ socket: path }).events()) {
    seen.push(text)
    if (text === 'before') events.add('', 'guest', 'after')
    if (text === 'after') break
  }
  expect(seen.slice(-2)).toEqual(['before', 'after'])
  await expect.poll(() => events.listenerCount('event')).toBe(0)
})

test('an event is one short line, whatever was said', () => {
  events.add('', 'refused', `a\nb${'c'.repeat(100_000)}`)
  const { text } = events.recent().at(-1)!
  expect(text.startsWith('a bc')).toBe(true)
  expect(text.length).toBeLessThan(5_000)
  for (let n = 0; n < 5_000; n++) events.add('', 'guest', 'again')
  expect(events.recent()).toHaveLength(1_000)
})
