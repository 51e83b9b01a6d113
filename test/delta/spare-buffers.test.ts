/** Spare buffers: used again when they are of about their size, and never by two at a time. */
import { expect, test } from 'vitest'
import { SpareBuffers, spareBytes } from '../../src/delta/spare-buffers.ts'

test('what nobody needs any more is used again; what is much smaller has a place of its own', () => {
  const spare = new SpareBuffers(1)
  const [one, other] = [spare.take(), spare.take(spareBytes - 3)]
  expect([one.length, other.length]).toEqual([spareBytes, spareBytes - 3])
  expect(other.buffer).not.toBe(one.buffer)
  spare.keep(other)
  // No more than it keeps.
  spare.keep(one)
  const again = spare.take(spareBytes - 2 ** 16)
  expect(again.buffer).toBe(other.buffer)
  expect(again.length).toBe(spareBytes - 2 ** 16)
  expect(spare.take().buffer).not.toBe(one.buffer)
  for (const bytes of [0, 1, spareBytes - 2 ** 16 - 1, spareBytes + 1]) {
    const own = spare.take(bytes)
    expect([own.length, own.buffer.byteLength]).toEqual([bytes, bytes])
    // Of another size: it is not taken for a spare one.
    spare.keep(own)
    expect(spare.take(bytes).buffer).not.toBe(own.buffer)
  }
})
