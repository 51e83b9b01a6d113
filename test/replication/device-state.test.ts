/** A device state travels as a change of the last one: the same comes out, whatever goes in. */
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { limits } from '../../src/limits.ts'
import { DeviceStateReader, DeviceStateWriter } from '../../src/replication/device-state.ts'
import { encodeHeader, frameType } from '../../src/replication/frame.ts'

const deviceStateBytesMax = limits.deviceStateBytes.value

const open: { close(): void }[] = []
afterEach(() => {
  for (const side of open.splice(0)) side.close()
})

function connect() {
  const writer = new DeviceStateWriter()
  const reader = new DeviceStateReader()
  open.push(writer, reader)
  return (state: Uint8Array) => {
    const payload = writer.encode(state)
    return { payload, arrived: reader.decode(payload) }
  }
}

test('any series of states arrives', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 9_000 }), { maxLength: 6 }), (states) => {
      const send = connect()
      for (const state of states) expect(Buffer.compare(send(state).arrived, state)).toBe(0)
    }),
    { numRuns: 50 },
  )
})

test('one that hardly changes takes few bytes', () => {
  const send = connect()
  const state = new Uint8Array(32 * 1024).map((_, at) => (at * 2_654_435_761) >>> 24)
  send(state)
  state[777] = 1
  state[20_000] = 2
  const { payload, arrived } = send(state)
  expect(payload.length).toBeLessThan(100)
  expect(Buffer.compare(arrived, state)).toBe(0)
})

test('the largest that is carried arrives, a larger one is refused and changes nothing', () => {
  const send = connect()
  const largest = new Uint8Array(deviceStateBytesMax).fill(7)
  expect(Buffer.compare(send(largest).arrived, largest)).toBe(0)
  expect(() => send(new Uint8Array(deviceStateBytesMax + 1))).toThrow(/4190208 are carried at most/)
  expect(Buffer.compare(send(largest).arrived, largest)).toBe(0)
})

test('the largest of noise is one frame, whatever was sent before', () => {
  const send = connect()
  const noise = (seed: number) =>
    new Uint8Array(deviceStateBytesMax).map((_, at) => (Math.imul(at + seed, 0x9e3779b1) >>> 11) | 1)
  for (const seed of [1, 7]) {
    const { payload, arrived } = send(noise(seed))
    expect(payload.length).toBeGreaterThan(deviceStateBytesMax)
    expect(() => encodeHeader({ type: frameType.device, epoch: 1, payload }, 0)).not.toThrow()
    expect(Buffer.compare(arrived, noise(seed))).toBe(0)
  }
})

describe('what no writer makes is refused', () => {
  test.each([
    ['nothing', new Uint8Array(0)],
    ['less than a length', new Uint8Array(3)],
    ['a length beyond what is carried', new Uint8Array([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])],
    ['a length and no delta', new Uint8Array([1, 0, 0, 0])],
    ['a delta that is none', new Uint8Array([1, 0, 0, 0, ...new Array(64).fill(0xee)])],
  ])('%s', (_, payload) => {
    const reader = new DeviceStateReader()
    open.push(reader)
    expect(() => reader.decode(payload)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^(FRAME|DELTA)_MALFORMED$/) }),
    )
  })
})
