/** A few runs of bench/torture/torture.ts, one of each family of faults: the whole is `npm run bench -- torture`. */
import { expect, test } from 'vitest'
import { tortureMany } from '../../bench/torture/many.ts'
import { torture } from '../../bench/torture/torture.ts'

const kinds = [
  'host death',
  'stop the primary host',
  'link down',
  'data corrupted',
  'kill the standby agent',
  'fault point on the primary',
]

test('nothing is lost and nothing serves twice, whatever fails', async () => {
  const result = await torture({ runs: kinds.length, kinds })
  expect(result, `seed ${result.seed}`).toMatchObject({
    ...{
      runs: kinds.length,
      acknowledgedLost: 0,
      splitBrain: 0,
      tornGuests: 0,
      disksWrong: 0,
      guestsLost: 0,
    },
    ...{ tcpResets: 0, notHealed: 0, errors: [] },
  })
  // A host that dies is failed over, whatever the others make of it.
  expect(result.failovers).toBeGreaterThan(0)
})

test('two guests, and processes of several kinds are killed at random moments: each guest is whole again', {
  timeout: 300_000,
}, async () => {
  const result = await tortureMany({ guests: 2, runs: 1 })
  const nothing = { acknowledgedLost: 0, splitBrain: 0, tornGuests: 0, disksWrong: 0, guestsLost: 0 }
  expect(result, `seed ${result.seed}`).toMatchObject({ runs: 1, notHealed: 0, errors: [] })
  // An agent, the keeper, and of each guest one of its own.
  expect(Object.keys(result.killed)).toEqual(expect.arrayContaining(['agent', 'keeper']))
  expect(Object.keys(result.killed)).toHaveLength(4)
  expect(result.perGuest).toHaveLength(2)
  for (const guest of result.perGuest) {
    expect(guest, `seed ${result.seed}`).toMatchObject({ ...nothing, leftovers: 0, tcpResets: 0 })
    expect(guest.adds).toBeGreaterThan(0)
  }
  const { QEMU = 0, 'primary supervisor': silent = 0 } = result.killed
  expect(result.failovers).toBeGreaterThanOrEqual(QEMU)
  // A supervisor that is not back before its silence counts is taken over from, too.
  expect(result.failovers).toBeLessThanOrEqual(QEMU + silent)
})
