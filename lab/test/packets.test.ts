/** Packets on the streams of QEMU's sockets, in pieces of any size. */
import { expect, test } from 'vitest'
import { framed, PacketReader } from '../src/sync/slave/packets.ts'

const packets = [Buffer.of(1, 2, 3), Buffer.alloc(0), Buffer.alloc(1514, 7), Buffer.of(0, 0, 0, 1)]
const stream = Buffer.concat(packets.map(framed))

test.each([1, 2, 3, 5, 700, stream.length])('packets come whole from pieces of %i bytes', (size) => {
  const reader = new PacketReader()
  const read: Buffer[] = []
  for (let at = 0; at < stream.length; at += size) read.push(...reader.push(stream.subarray(at, at + size)))
  expect(read.map((packet) => packet.toString('hex'))).toEqual(
    packets.map((packet) => packet.toString('hex')),
  )
})

test('a packet whose end has not come is not given', () => {
  const reader = new PacketReader()
  expect(reader.push(framed(Buffer.of(1, 2, 3)).subarray(0, 6))).toEqual([])
  expect(reader.push(Buffer.of(3))).toEqual([Buffer.of(1, 2, 3)])
})
