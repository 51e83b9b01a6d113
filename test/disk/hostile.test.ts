/** Clients of a disk's endpoint that break the protocol of NBD: each is refused or closed, and the next one is served. */

import { readdirSync } from 'node:fs'
import { createConnection } from 'node:net'
import { describe, expect, test } from 'vitest'
import { checkDisk, recordHeaderBytes, recordKind } from '../../src/disk/records.ts'
import { limits } from '../../src/limits.ts'
import { openEndpoint } from './open-endpoint.ts'

const bytes = 2 ** 20
const greetingBytes = 18
const flags = [0, 0, 0, 3]

const u16 = (value: number) => [value >> 8, value & 255]
const u32 = (value: number) => [...u16(value >>> 16), ...u16(value & 0xffff)]
const u64 = (value: number) => [...u32(Math.floor(value / 2 ** 32)), ...u32(value % 2 ** 32)]
const option = (number: number, data: number[] = [], length = data.length) => [
  ...Buffer.from('IHAVEOPT'),
  ...u32(number),
  ...u32(length),
  ...data,
]
const exportName = option(1)
const request = (
  type: number,
  offset: number,
  length: number,
  { commandFlags = 0, magic = 0x25609513 } = {},
) => [...u32(magic), ...u16(commandFlags), ...u16(type), ...u64(7), ...u64(offset), ...u32(length)]
const reply = (error: number) => [...u32(0x67446698), ...u32(error), ...u64(7)]

/** What the server answers behind its greeting, until it closes or `enough` bytes are there. */
function converse(path: string, said: number[], enough = Number.POSITIVE_INFINITY): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path)
    let heard = Buffer.alloc(0)
    const done = () => {
      socket.destroy()
      resolve(heard.subarray(greetingBytes))
    }
    socket.on('data', (data) => {
      heard = Buffer.concat([heard, data])
      if (heard.length >= greetingBytes + enough) done()
    })
    socket.on('end', done)
    socket.on('close', done)
    // The server closes while we still send: that is its right.
    socket.on('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EPIPE' || error.code === 'ECONNRESET' ? done() : reject(error),
    )
    socket.write(Uint8Array.from(said))
  })
}

/** A good client is served. */
async function serves(path: string): Promise<void> {
  const heard = await converse(path, [...flags, ...exportName, ...request(3, 0, 0)], 10 + 16)
  expect([...heard.subarray(10)]).toEqual(reply(0))
}

describe('a client that breaks the protocol is closed', () => {
  test.each<[string, number[]]>([
    ['garbage', [...Buffer.from('GET / HTTP/1.1\r\nHost: disk\r\n\r\n')]],
    ['flags that nobody knows', [0, 0, 1, 3]],
    ['an option with a wrong magic', [...flags, ...Buffer.from('IHAVENOT'), ...u32(1), ...u32(0)]],
    ['an option that is too long', [...flags, ...option(7, [], limits.nbdOptionBytes.value + 1)]],
    ['a name that is too long', [...flags, ...option(1, new Array(4097).fill(97))]],
    ['a request with a wrong magic', [...flags, ...exportName, ...request(1, 0, 512, { magic: 1 })]],
    [
      'a write that is too long',
      [...flags, ...exportName, ...request(1, 0, limits.diskWriteBytes.value + 1)],
    ],
    ['a write of 4 GiB', [...flags, ...exportName, ...request(1, 0, 2 ** 32 - 1)]],
  ])('%s', async (_, said) => {
    const { endpoint, path } = openEndpoint(bytes)
    endpoint.record()
    // It ends by itself.
    await converse(path, said)
    expect(endpoint.stats.writes).toBe(0)
    await serves(path)
  })
})

describe('a request that cannot be served is refused, and the connection goes on', () => {
  const data = new Array(512).fill(1)
  test.each<[string, number[], number]>([
    ['a read', request(0, 0, 512), 1],
    ['a trim', request(4, 0, 512), 22],
    ['a write of zeros without data', request(6, 0, 512), 22],
    ['an unknown command', request(99, 0, 512), 22],
    ['a flush with a range', request(3, 512, 512), 22],
    ['a write with flags that were not offered', [...request(1, 0, 512, { commandFlags: 2 }), ...data], 22],
    ['a write beyond the end', [...request(1, bytes, 512), ...data], 28],
    ['a write across the end', [...request(1, bytes - 511, 512), ...data], 28],
    ['a write far beyond the end', [...request(1, 2 ** 60, 512), ...data], 28],
  ])('%s', async (_, said, error) => {
    const { endpoint, path } = openEndpoint(bytes)
    endpoint.record()
    const heard = await converse(
      path,
      [...flags, ...exportName, ...said, ...request(1, 0, 512, { commandFlags: 1 }), ...data],
      10 + 2 * 16,
    )
    expect([...heard.subarray(10)]).toEqual([...reply(error), ...reply(0)])
    expect(endpoint.stats).toMatchObject({ writes: 1, writtenBytes: 512 })
  })
})

test('options that are not served are refused, and the negotiation goes on', async () => {
  const { path } = openEndpoint(bytes)
  for (const [number, data, error] of [
    [5, [], 0x80000001],
    [8, [], 0x80000001],
    [10, [0, 0, 0, 0, 0, 0, 0, 0], 0x80000001],
    [4711, [1, 2, 3], 0x80000001],
    [7, [0, 0, 0, 9, 0, 0], 0x80000003],
    [7, [0xff, 0xff, 0xff, 0xff, 0, 0], 0x80000003],
    [7, [0, 0, 0, 0, 0, 2, 0, 3], 0x80000003],
    [3, [1], 0x80000003],
  ] as const) {
    const heard = await converse(path, [...flags, ...option(number, [...data]), ...exportName], 20 + 10)
    expect(heard.readUInt32BE(12)).toBe(error)
    expect(heard.readUInt32BE(20 + 4)).toBe(bytes)
  }
})

test('a hundred clients come and go, some in the middle of a write: no thread and no descriptor stays', async () => {
  const { endpoint, path } = openEndpoint(bytes)
  endpoint.record()
  await serves(path)
  const count = (folder: string) => readdirSync(`/proc/self/${folder}`).length
  await expect.poll(() => endpoint.stats.connected).toBe(false)
  const [threads, descriptors] = [count('task'), count('fd')]
  for (let i = 0; i < 100; i++)
    await converse(path, [...flags, ...exportName, ...request(1, 0, 512), ...new Array(i).fill(1)], 10)
  await serves(path)
  await expect.poll(() => [count('task'), count('fd')]).toEqual([threads, descriptors])
  expect(endpoint.stats.writes).toBe(0)
})

describe('records that no journal makes are refused', () => {
  const record = (offset: number, length: number, kind: number, dataBytes: number) => {
    const made = Buffer.alloc(recordHeaderBytes + dataBytes, 1)
    made.writeBigUInt64LE(BigInt(offset), 0)
    made.writeUInt32LE(length, 8)
    made.writeUInt32LE(kind, 12)
    return made
  }
  const { data, zeroes } = recordKind
  const large = limits.diskWriteBytes.value
  test.each<[string, Buffer]>([
    ['an empty one', record(0, 0, data, 0)],
    ['an unknown kind', record(0, 1, 2, 1)],
    ['too little data', record(0, 10, data, 9)],
    ['a rest', record(0, 10, data, 11)],
    ['half a header', record(0, 10, data, 10).subarray(0, 15)],
    ['across the end of the disk', record(4 * large - 1, 2, data, 2)],
    ['beyond the end of the disk', record(4 * large, 1, zeroes, 0)],
    ['an offset that wraps', record(Number.MAX_SAFE_INTEGER, 4096, zeroes, 0)],
    ['zeros longer than any write', record(0, large + 1, zeroes, 0)],
  ])('%s', (_, payload) => {
    expect(() => checkDisk(payload, 0, 4 * large)).toThrow(
      expect.objectContaining({ code: 'FRAME_MALFORMED' }),
    )
    const sound = record(0, 3, data, 3)
    expect(() => checkDisk(Buffer.concat([sound, payload]), 0, 4 * large)).toThrow(/refused/)
    expect(checkDisk(Buffer.concat([payload, sound, sound]), payload.length, 4 * large)).toBe(2)
  })
})
