/** The cost of logging: the formula, term by term. */
import { expect, test } from 'vitest'
import { loggingShare, protectionShare, sharesBySize } from '../../src/pml/model.ts'

const events = {
  seconds: 2,
  logged: 10_000,
  full: { 128: 78, 256: 39, 512: 19, 1024: 9, 2048: 4, 4096: 2 },
}
const prices = { exitEntryNs: 1000, handleEntryNs: 10, logPageNs: 3 }

test('T = T_PTW + N × (T_x + T_e + T_h), as a share of the time', () => {
  expect(loggingShare(events, 512, prices)).toBeCloseTo((30_000 + 19 * (1000 + 5120)) / 2e9, 12)
  expect(loggingShare(events, 128, { ...prices, logPageNs: 0 })).toBeCloseTo((78 * 2280) / 2e9, 12)
  expect(loggingShare({ ...events, logged: 0, full: { ...events.full, 512: 0 } }, 512, prices)).toBe(0)
})

test('write protection pays for each page', () => {
  expect(protectionShare(events, 800, 0)).toBeCloseTo(0.004, 12)
  expect(protectionShare(events, 800, 200)).toBeCloseTo(0.005, 12)
})

test('a share for each size; larger logs cost less, since fewer pages wait for an exit', () => {
  const shares = Object.values(sharesBySize(events))
  expect(shares).toHaveLength(6)
  expect([...shares].sort((a, b) => b - a)).toEqual(shares)
})
