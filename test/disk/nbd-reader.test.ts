/** Reading an export of an NBD server: one that is not ours, and servers that are none or break off. */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { NbdReader } from '../../src/disk/nbd-reader.ts'

let directory: string
let path: string
const children: ChildProcess[] = []
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'subpage-nbd-'))
  path = join(directory, 'socket')
})
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  rmSync(directory, { recursive: true })
})

test('reads what qemu-nbd serves, at any place', async () => {
  const content = randomBytes(3 * 2 ** 20 + 512)
  const file = join(directory, 'disk')
  writeFileSync(file, content)
  const server = spawn('qemu-nbd', ['-r', '-f', 'raw', '-x', 'data', '-k', path, file], { stdio: 'ignore' })
  children.push(server)
  await expect.poll(() => existsSync(path), { timeout: 10_000 }).toBe(true)
  const reader = await NbdReader.open(path, 'data')
  expect(reader.bytes).toBe(content.length)
  for (const [offset, length] of [
    [0, 2 ** 20],
    [2 ** 20 - 512, 1024],
    [content.length - 512, 512],
  ] as const)
    expect((await reader.read(offset, length)).equals(content.subarray(offset, offset + length))).toBe(true)
  await expect(reader.read(content.length, 512)).rejects.toThrow(/cannot read \(error 22\)/)
  reader.close()
  // It serves one client, and has gone with it.
  if (server.exitCode === null) await once(server, 'exit')
  expect(server.exitCode).toBe(0)
})

test('an export that is not there is named', async () => {
  const file = join(directory, 'disk')
  writeFileSync(file, Buffer.alloc(4096))
  children.push(spawn('qemu-nbd', ['-r', '-f', 'raw', '-x', 'data', '-k', path, file], { stdio: 'ignore' }))
  await expect.poll(() => existsSync(path), { timeout: 10_000 }).toBe(true)
  await expect(NbdReader.open(path, 'other')).rejects.toThrow(/refuses export other/)
})

describe('a server that is none', () => {
  const hello = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 1])])
  /** Of kind and length, without a body. */
  const answer = (kind: number, length: number) => {
    const bytes = Buffer.alloc(20)
    bytes.writeBigUInt64BE(0x3e889045565a9n, 0)
    bytes.writeUInt32BE(7, 8)
    bytes.writeUInt32BE(kind, 12)
    bytes.writeUInt32BE(length, 16)
    return bytes
  }
  test.each<[string, (socket: Socket) => void, RegExp]>([
    ['hangs up', (socket) => socket.end(), /closed the connection/],
    ['says something else', (socket) => socket.end(Buffer.alloc(18, 'x')), /no NBD server/],
    [
      'breaks off in its greeting',
      (socket) => socket.end(hello.subarray(0, 10)),
      /closed the connection|broke/,
    ],
    [
      'is too old',
      (socket) => socket.write(Buffer.concat([hello.subarray(0, 16), Buffer.alloc(2)])),
      /too old/,
    ],
    [
      'says too much',
      (socket) => socket.write(Buffer.concat([hello, answer(3, 1 << 20)])),
      /broke the protocol/,
    ],
    ['names no size', (socket) => socket.write(Buffer.concat([hello, answer(1, 0)])), /how large/],
    [
      'refuses',
      (socket) => socket.write(Buffer.concat([hello, answer(0x80000006, 2), Buffer.from('no')])),
      /refuses export data: no/,
    ],
  ])('%s', async (_, behave, why) => {
    const server = createServer((socket) => behave(socket.on('error', () => socket.destroy()))).listen(path)
    await once(server, 'listening')
    await expect(NbdReader.open(path, 'data')).rejects.toThrow(why)
    server.close()
  })

  test('is not there', async () => {
    await expect(NbdReader.open(path, 'data')).rejects.toThrow(/ENOENT/)
  })
})
