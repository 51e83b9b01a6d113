/** The payloads: what is written is read back, and a payload of another form is one clear error. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type Commit,
  decodeCommit,
  Ended,
  encodeCommit,
  Hello,
  Refusal,
  readJson,
  Welcome,
} from '../../src/replication/messages.ts'
import { helloFor } from './pair.ts'

const malformed = expect.objectContaining({ code: 'FRAME_MALFORMED' })
const bytes = (value: unknown) => Buffer.from(JSON.stringify(value))

describe('commit', () => {
  test('any commit comes back', () => {
    const commit: fc.Arbitrary<Commit> = fc.record({
      deltas: fc.nat(2 ** 32 - 1),
      deltaBytes: fc.maxSafeNat(),
      consoleBytes: fc.maxSafeNat(),
      digest: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      diskFrames: fc.nat(2 ** 32 - 1),
      suspended: fc.boolean(),
    })
    fc.assert(
      fc.property(commit, (sent) => {
        expect(decodeCommit(encodeCommit(sent))).toEqual(sent)
      }),
    )
  })

  const sent = { deltas: 3, deltaBytes: 4, consoleBytes: 5, digest: 6n, diskFrames: 7, suspended: true }

  test('also when its bytes lie within a larger buffer', () => {
    const larger = Buffer.concat([Buffer.alloc(7, 255), encodeCommit(sent), Buffer.alloc(3, 255)])
    expect(decodeCommit(larger.subarray(7, 43))).toEqual(sent)
  })

  test('any other length, and fields out of range', () => {
    for (const length of [0, 1, 32, 35, 37, 4096])
      expect(() => decodeCommit(Buffer.alloc(length))).toThrow(malformed)
    for (const [at, value] of [
      [8, 2n ** 53n],
      [16, 2n ** 64n - 1n],
      // The upper half of what is written at 28 is the suspension.
      [28, 2n << 32n],
    ] as const) {
      const commit = Buffer.from(encodeCommit(sent))
      commit.writeBigUInt64LE(value, at)
      expect(() => decodeCommit(commit)).toThrow(malformed)
    }
  })
})

describe('hello', () => {
  const hello = helloFor({ pages: 4 })

  test('is read back', () => {
    expect(readJson(Hello, bytes(hello), 'the hello')).toEqual(hello)
  })

  const guest = (change: object) => ({ ...hello, guest: { ...hello.guest, ...change } })
  test.each<[string, unknown]>([
    ['null', null],
    ['a list', []],
    ['a string', 'hello'],
    ['nothing in it', {}],
    ['a protocol that is no number', { ...hello, protocol: '1' }],
    ['no guest', { ...hello, guest: undefined }],
    ['a guest without a name', guest({ name: undefined })],
    ['a name that is no string', guest({ name: 7 })],
    ['no memory', guest({ memoryBytes: 0 })],
    ['memory of half a page', guest({ memoryBytes: 4096 + 2048 })],
    ['negative memory', guest({ memoryBytes: -4096 })],
    ['memory that is no number', guest({ memoryBytes: '4096' })],
    ['a machine that is no object', guest({ hypervisor: 'q35' })],
    ['a guest without an identity', guest({ id: 'web' })],
    ['generation 0', { ...hello, generation: 0 }],
    ['no settings', { ...hello, settings: undefined }],
    ['suspicion at once', { ...hello, settings: { ...hello.settings, suspicionMs: 1 } }],
    ['an unknown codec', { ...hello, settings: { ...hello.settings, codec: 'best' } }],
    ['no process', { ...hello, source: { ...hello.source, process: undefined } }],
    ['a process id that is no number', { ...hello, source: { ...hello.source, process: { pid: 'x' } } }],
  ])('refused: %s', (_, value) => {
    expect(() => readJson(Hello, bytes(value), 'the hello')).toThrow(malformed)
  })

  test('random bytes and random JSON never pass', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (noise) => {
        expect(() => readJson(Hello, noise, 'the hello')).toThrow(malformed)
      }),
    )
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(() => readJson(Hello, bytes(value), 'the hello')).toThrow(malformed)
      }),
    )
  })
})

test('the other messages', () => {
  const welcome = {
    release: 'x',
    claimant: 'b',
    imagePages: 3,
    image: 'held',
    arbitrated: true,
    disks: [{ path: '/d', made: true }],
  }
  expect(readJson(Welcome, bytes(welcome), 'w')).toEqual(welcome)
  expect(() => readJson(Welcome, bytes({ ...welcome, imagePages: 3.5 }), 'w')).toThrow(malformed)
  expect(() => readJson(Welcome, bytes({ ...welcome, image: 'new' }), 'w')).toThrow(malformed)
  expect(() => readJson(Ended, bytes({ how: 'vanished', detail: '' }), 'e')).toThrow(malformed)
  expect(() => readJson(Refusal, bytes({ code: 'X', message: 'y'.repeat(5000) }), 'r')).toThrow(malformed)
})
