/** What QEMU may say on its control socket, and what ends the connection: with a clear error, and nothing else. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { limits } from '../../src/limits.ts'
import { Qmp } from '../../src/qemu/qmp.ts'
import { QmpLines } from '../../src/qemu/qmp-lines.ts'

const greeting =
  '{"QMP": {"version": {"qemu": {"micro": 1, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\n'

/** A QEMU that greets with these bytes, agrees to everything, and answers the first command with `answer`. */
async function qemuThatSays(answer: (id: number, socket: Socket) => void, first = greeting): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-qmp-'))
  const path = join(folder, 'qmp')
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy())
    socket.write(first)
    let commands = 0
    socket.on('data', (bytes: Buffer) => {
      for (const line of String(bytes).split('\n')) {
        if (line === '') continue
        const { id } = JSON.parse(line) as { id: number }
        if (commands++ === 0) socket.write(`{"return": {}, "id": ${id}}\n`)
        else answer(id, socket)
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  onTestFinished(() => {
    server.close()
    rmSync(folder, { recursive: true })
  })
  return path
}

async function connect(path: string): Promise<Qmp> {
  const client = await Qmp.connect(path, 5000)
  onTestFinished(() => client.close())
  return client
}

test.each([
  ['null', 'null\n'],
  ['half a line', '{"return": {}, "id"\n'],
  ['a number', '7\n'],
  ['a list', '[{"return": {}, "id": 2}]\n'],
  ['an event without a time', '{"event": "STOP"}\n'],
  ['an event whose time is null', '{"event": "STOP", "timestamp": null}\n'],
  ['an event that is no word', '{"event": {}, "timestamp": {"seconds": 1, "microseconds": 2}}\n'],
  ['data that are null', '{"event": "STOP", "data": null, "timestamp": {"seconds": 1, "microseconds": 2}}\n'],
  ['an error without words', '{"error": null, "id": 2}\n'],
  ['an id that is no number', '{"return": {}, "id": {}}\n'],
  ['no text', Buffer.from([0xff, 0xfe, 0, 1, 10])],
])('%s ends the connection, and whoever waits hears why', async (_, bytes) => {
  const client = await connect(await qemuThatSays((_id, socket) => socket.write(bytes)))
  const closed = new Promise<void>((resolve) => client.once('close', resolve))
  const answers = client.pipeline([{ execute: 'query-status' }, { execute: 'stop' }])
  for (const answer of answers)
    await expect(answer).rejects.toMatchObject({ code: 'QEMU_FAILED', message: /which is no QMP/ })
  await closed
  expect(client.closed).toBe(true)
  await expect(client.run('cont')).rejects.toMatchObject({ code: 'QEMU_FAILED' })
})

test('an answer as long as is taken arrives, one byte more ends the connection', async () => {
  const frame = (id: number) => `{"return": "", "id": ${id}}`.length
  const answer = (id: number, extra: number) =>
    `{"return": "${'x'.repeat(limits.qmpLineBytes.value - frame(id) + extra)}", "id": ${id}}`
  let extra = 0
  const client = await connect(
    await qemuThatSays((id, socket) => {
      socket.write(`${answer(id, extra)}\n`)
    }),
  )
  expect(((await client.run('query-qmp-schema')) as string).length).toBeGreaterThan(
    limits.qmpLineBytes.value - 64,
  )
  extra = 1
  await expect(client.run('query-qmp-schema')).rejects.toMatchObject({
    code: 'QEMU_FAILED',
    message: new RegExp(`more than ${limits.qmpLineBytes.value} bytes`),
  })
})

test('a line without end is given up at the limit, and not kept', () => {
  const lines = new QmpLines()
  const piece = 'x'.repeat(2 ** 20)
  const pushes = limits.qmpLineBytes.value / piece.length
  for (let i = 0; i < pushes; i++) expect(lines.push(piece)).toEqual([])
  expect(() => lines.push('x')).toThrow(/a line of more than/)
})

test.each([
  ['nothing that is JSON', 'SSH-2.0-OpenSSH_9.2\r\n'],
  ['null', 'null\n'],
  ['no greeting', '{"return": {}}\n'],
  ['a version without numbers', '{"QMP": {"version": {"qemu": "7.2"}}}\n'],
])('a greeting that is %s is refused', async (_, first) => {
  const path = await qemuThatSays(() => undefined, first)
  await expect(Qmp.connect(path, 5000)).rejects.toMatchObject({
    code: 'QEMU_FAILED',
    message: /which is no QMP/,
  })
})

test('events that come before the greeting, as those of a monitor that was used before may, are passed over', async () => {
  const event = '{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}\n'
  const client = await connect(await qemuThatSays(() => undefined, `${event}${event}${greeting}`))
  expect(client.version).toBe('7.2.1')
})

test('messages that come in pieces, or several at once, are taken one by one', () => {
  const text = `${greeting}\r\n{"return": 1, "id": 1}\r\n\n{"return": 2, "id": 2}\n`
  for (let size = 1; size <= text.length; size++) {
    const lines = new QmpLines()
    const messages = []
    for (let at = 0; at < text.length; at += size) messages.push(...lines.push(text.slice(at, at + size)))
    expect(messages.map(({ id }) => id)).toEqual([undefined, 1, 2])
  }
})
