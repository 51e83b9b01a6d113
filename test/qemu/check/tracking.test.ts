/** What `check` says of the price of tracking. */
import { expect, test } from 'vitest'
import { priceOf } from '../../../src/qemu/check/tracking.ts'

test('faults that are dear are named, with what to do; others with their price', () => {
  expect(priceOf('found', undefined)).toEqual(['found'])
  expect(priceOf('found', 960)).toEqual(['found; a first write to a page takes 1.0 µs'])
  expect(priceOf('found', 13_545)).toEqual([
    'found; a first write to a page takes 13.5 µs, where 1 to 3 are usual',
    { otherwise: 'degraded', remedy: expect.stringMatching(/longer epochs \(--epoch 100ms, or auto\)/) },
  ])
})
