/**
 * A redis client that measures, run in the client's namespace: `redis-load HOST PORT latency|throughput SECONDS`. Prints JSON.
 * Latency: one request at a time. Throughput: several connections, each with a window of requests under way. Requests are
 * SET, answered by `+OK` (RESP2); any other answer is an error.
 */
import { connect, type Socket } from 'node:net'
import { argv, exit, stdout } from 'node:process'

export interface Latency {
  requests: number
  p50: number
  p99: number
  max: number
}

const connections = 8
/** Large enough that redis does not wait for us while its answers wait for a commit. */
const window = 1024

const [host = '', port = '', mode = '', seconds = ''] = argv.slice(2)
const endAt = performance.now() + Number(seconds) * 1000

async function open(): Promise<Socket> {
  const socket = connect(Number(port), host)
  socket.setNoDelay(true)
  await new Promise((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  socket.on('error', (error) => {
    throw error
  })
  return socket
}

function request(n: number): string {
  const key = `key:${n % 1000}`
  const value = `value-${n}`
  return `*3\r\n$3\r\nSET\r\n$${key.length}\r\n${key}\r\n$${value.length}\r\n${value}\r\n`
}

/** How many answers end in this piece. */
function answers(piece: Buffer): number {
  if (piece.includes('-')) throw new Error(`redis answers ${piece}`)
  let count = 0
  for (const byte of piece) if (byte === 10) count++
  return count
}

async function latency(): Promise<Latency> {
  const socket = await open()
  const took: number[] = []
  let answered: () => void = () => undefined
  socket.on('data', (piece: Buffer) => {
    if (answers(piece) > 0) answered()
  })
  while (performance.now() < endAt) {
    const sentAt = performance.now()
    const answer = new Promise<void>((resolve) => {
      answered = resolve
    })
    socket.write(request(took.length))
    await answer
    took.push((performance.now() - sentAt) * 1000)
  }
  took.sort((x, y) => x - y)
  const at = (share: number) => Math.round(took[Math.floor((took.length - 1) * share)] ?? 0)
  return { requests: took.length, p50: at(0.5), p99: at(0.99), max: at(1) }
}

/** Requests per second, from when all windows are full. */
async function throughput(): Promise<{ perSecond: number }> {
  const sockets = await Promise.all(Array.from({ length: connections }, open))
  let done = 0
  for (const socket of sockets) {
    let next = 0
    const ask = (count: number) => {
      let text = ''
      for (let i = 0; i < count; i++) text += request(next++)
      socket.write(text)
    }
    socket.on('data', (piece: Buffer) => {
      const count = answers(piece)
      done += count
      ask(count)
    })
    ask(window)
  }
  const until = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
  const allMs = endAt - performance.now()
  await until(allMs / 4)
  const startedAt = performance.now()
  const before = done
  await until(allMs * 0.75)
  return { perSecond: Math.round(((done - before) * 1000) / (performance.now() - startedAt)) }
}

stdout.write(`${JSON.stringify(mode === 'latency' ? await latency() : await throughput())}\n`, () => exit(0))
