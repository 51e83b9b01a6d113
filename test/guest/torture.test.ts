/** A few runs of bench/torture/torture.ts, one of each family of faults: the whole is `npm run bench -- torture`. */
import { expect, test } from 'vitest'
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
