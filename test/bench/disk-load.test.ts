/** What a guest says of a load on its disk: a line that has come in part is none yet. */
import { expect, test } from 'vitest'
import { loadLine } from '../../bench/disk.ts'

test('a line counts when it is whole', () => {
  const line = 'diskload job=sync1 ops=120 us=1000000 bytes=491520 p50us=9111 p99us=27300\n'
  for (let length = 0; length < line.length; length++)
    expect(loadLine('sync1', line.slice(0, length))).toBeUndefined()
  expect(loadLine('sync1', `booting\n${line}`)).toEqual([120, 1_000_000, 491_520, 9111, 27_300])
  expect(loadLine('seq', line)).toBeUndefined()
})
