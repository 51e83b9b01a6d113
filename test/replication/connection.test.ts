/** Connections over real sockets: back-pressure, cuts, refusals, and the last words of either side. */
import { once } from 'node:events'
import { expect, onTestFinished, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { Connection } from '../../src/replication/connection.ts'
import {
  encodeHeader,
  type Frame,
  frameType,
  headerBytes,
  payloadBytesMax,
} from '../../src/replication/frame.ts'
import { socketPair } from './sockets.ts'

async function pair() {
  const [left, right] = await socketPair()
  onTestFinished(() => {
    left.destroy()
    right.destroy()
  })
  return { left, right, a: new Connection(left), b: new Connection(right) }
}

async function collect(connection: Connection): Promise<Frame[]> {
  const frames: Frame[] = []
  for await (const frame of connection) frames.push(frame)
  return frames
}

test('frames arrive in order; a close between two frames is an end', async () => {
  const { a, b } = await pair()
  const received = collect(b)
  for (let epoch = 1; epoch <= 100; epoch++)
    void a.send(frameType.pages, epoch, Buffer.alloc(epoch * 10, epoch))
  await a.finish()
  const frames = await received
  expect(frames.map(({ epoch }) => epoch)).toEqual(Array.from({ length: 100 }, (_, i) => i + 1))
  expect(frames.every(({ epoch, payload }) => payload.every((byte) => byte === epoch))).toBe(true)
  expect(a.bytesSent).toBe(100 * headerBytes + (10 * 100 * 101) / 2)
  expect([a.closed, b.closed]).toEqual([true, true])
})

test('a peer that does not read holds the sender back; nothing piles up on the reader', async () => {
  const { a, b, right } = await pair()
  let handedOver = 0
  const total = 64
  const payload = Buffer.alloc(2 ** 20, 1)
  const sends = Array.from({ length: total }, async (_, epoch) => {
    await a.send(frameType.pages, epoch, payload)
    handedOver++
  })
  const frames = b[Symbol.asyncIterator]()
  await frames.next()
  // Until what the kernel takes is full: then the count stands still.
  await expect
    .poll(async () => {
      const before = handedOver
      await new Promise((resolve) => setTimeout(resolve, 100))
      return handedOver === before
    })
    .toBe(true)
  expect(handedOver).toBeLessThan(total)
  expect(right.readableLength).toBeLessThan(2 * 2 ** 20)
  for (let received = 1; received < total; received++) await frames.next()
  await Promise.all(sends)
})

test('cut within a frame: what was whole arrives, then one error', async () => {
  const { left, b } = await pair()
  const first = encodeHeader({ type: frameType.ack, epoch: 1, payload: Buffer.alloc(0) }, 0)
  left.end(Buffer.concat([first, first.subarray(0, 20)]))
  const frames = b[Symbol.asyncIterator]()
  expect((await frames.next()).value).toMatchObject({ epoch: 1 })
  await expect(frames.next()).rejects.toMatchObject({
    code: 'PEER_UNREACHABLE',
    message: expect.stringContaining('cut within a frame'),
  })
  expect((await frames.next()).done).toBe(true)
})

test('a reset is an error too', async () => {
  const { left, b } = await pair()
  const received = collect(b)
  left.resetAndDestroy()
  await expect(received).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' })
})

test('damage is one error; the peer can still be told, and reads the reason', async () => {
  const { a, b, left } = await pair()
  left.write('GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n')
  const error = await collect(b).catch((thrown) => thrown)
  expect(error).toMatchObject({ code: 'FRAME_MALFORMED' })
  // More is on its way, unread, when the refusal is sent: a plain close would reset the connection.
  left.write(Buffer.alloc(3 * 2 ** 20))
  const refused = b.refuse(error)
  const [told] = await collect(a)
  expect(told).toMatchObject({ type: frameType.refuse })
  expect(JSON.parse(String(Buffer.from(told!.payload)))).toEqual({
    code: 'FRAME_MALFORMED',
    message: error.message,
  })
  await refused
  expect(b.closed).toBe(true)
})

test('a peer that never reads does not keep a refusal open', async () => {
  const { b, left } = await pair()
  left.pause()
  void b.send(frameType.pages, 1, Buffer.alloc(payloadBytesMax)).catch(() => 'lost, as it should be')
  await b.refuse(new SubpageError('FRAME_MALFORMED', 'x'.repeat(10_000)))
  expect(b.closed).toBe(true)
})

test('sending on a closed connection fails, before and after the close is known', async () => {
  const { a, b, right } = await pair()
  a.close()
  await expect(a.send(frameType.ack, 1)).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' })
  await once(right.resume(), 'close')
  await expect(b.send(frameType.ack, 1)).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' })
  await b.finish()
})

test('a send that waits when the connection is closed fails', async () => {
  const { a } = await pair()
  const sends = Array.from({ length: 8 }, () => a.send(frameType.pages, 1, Buffer.alloc(payloadBytesMax)))
  const outcomes = Promise.allSettled(sends)
  a.close()
  expect((await outcomes).at(-1)).toMatchObject({ status: 'rejected', reason: { code: 'PEER_UNREACHABLE' } })
})
