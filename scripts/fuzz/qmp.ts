/** What QEMU says on its control socket: a server that answers as QEMU does, with lines that are bent. Over a real socket. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Qmp } from '../../src/qemu/qmp.ts'
import { bent, oneIn, pick, type SeededRandom, type Target } from './target.ts'

const greeting = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 1 }, package: 'x' }, capabilities: ['oob'] },
}
const values = [null, true, 0, -1, 1e308, '', 'x', [], [1], {}, { id: 1 }, { event: 'STOP' }]

function line(random: SeededRandom, id: unknown): string {
  const timestamp = { seconds: 1, microseconds: 2 }
  const message = pick(random, [
    { return: pick(random, values), id },
    { return: {}, id },
    { error: { class: 'GenericError', desc: 'no' }, id },
    { error: pick(random, values), id },
    { event: 'STOP', timestamp },
    { event: 'BLOCK_JOB', data: pick(random, values), timestamp: pick(random, [timestamp, ...values]) },
    { event: pick(random, values), timestamp },
    pick(random, values),
    { QMP: pick(random, values), return: {}, id },
  ])
  return JSON.stringify(message)
}

/** The bytes of some lines; sometimes bent, sometimes without their end. */
function speech(random: SeededRandom, lines: readonly string[]): Buffer {
  const text = Buffer.from(lines.map((one) => `${one}${pick(random, ['\n', '\r\n', '\n\n'])}`).join(''))
  return oneIn(random, 3) ? bent(random, text) : text
}

const idOf = (request: string): unknown => {
  try {
    return JSON.parse(request).id
  } catch {
    // Two requests in one piece: answer the first one.
    return 1
  }
}

/** Bytes that may come in any pieces; then QEMU ends. */
function say(random: SeededRandom, socket: Socket, bytes: Buffer): void {
  const cut = random.integer(0, bytes.length)
  socket.write(bytes.subarray(0, cut))
  socket.write(bytes.subarray(cut))
}

export async function qmp(): Promise<Target> {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-fuzz-'))
  const path = join(folder, 'qmp')
  let random: SeededRandom | undefined
  const server: Server = createServer((socket) => {
    const now = random!
    socket.on('error', () => socket.destroy())
    const first = JSON.stringify(greeting)
    socket.write(oneIn(now, 4) ? speech(now, [first]) : `${first}\n`)
    socket.once('data', (request: Buffer) => {
      const sound = JSON.stringify({ return: {}, id: idOf(String(request)) })
      socket.write(oneIn(now, 4) ? speech(now, [sound]) : `${sound}\n`)
      socket.once('data', (next: Buffer) => {
        const id = idOf(String(next))
        const lines = Array.from({ length: now.integer(0, 5) }, () =>
          line(now, oneIn(now, 3) ? pick(now, values) : id),
        )
        // Half of the time QEMU behaves first.
        if (oneIn(now, 2)) lines.unshift(JSON.stringify({ return: { status: 'running' }, id }))
        say(now, socket, speech(now, lines))
        socket.end()
      })
    })
    // Whoever hears nothing that it understands waits: QEMU ends then.
    setTimeout(() => socket.destroy(), 100).unref()
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  return {
    name: 'qmp',
    refusals: ['QEMU_FAILED', 'GUEST_DIED'],
    async once(seeded) {
      random = seeded
      const client = await Qmp.connect(path, 2000)
      try {
        await Promise.all(client.pipeline([{ execute: 'query-status' }]))
      } finally {
        client.close()
      }
    },
    close() {
      server.close()
      rmSync(folder, { recursive: true })
    },
  }
}
