/** The last hour of a guest: a bounded ring of points, made of what status says one time after the other. */
import { expect, test } from 'vitest'
import { GuestHistory, pointColumns } from '../../src/agent/guest-history.ts'
import type { Point } from '../../src/agent/point-ring.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import { DurationStats } from '../../src/replication/durations.ts'

const durations = new DurationStats()
const status = (checkpoints: number): GuestStatus =>
  ({
    name: 'web',
    disks: [],
    last: { reduced: { dictionaryLines: checkpoints, sharedLines: 0 } },
    epochs: {
      ...{ checkpoints, lagMs: 30, dirtyPages: 100 * checkpoints },
      bytes: { changedLines: 0, sent: 10 * checkpoints },
      durations: { pause: durations.counted, commit: durations.counted },
    },
  }) as unknown as GuestStatus
const column = (point: Point, name: (typeof pointColumns)[number]) => point[pointColumns.indexOf(name)]

test('a point has rates per second and means of its interval, and says what it does not know', () => {
  const history = new GuestHistory()
  history.note(status(0), 0, 1e12)
  for (const us of [2_000, 4_000]) durations.add(us)
  history.note(status(2), 1_000, 1e12 + 1_000)
  history.note(status(2), 10_000, 1e12 + 10_000)
  history.note(status(0), 20_000, 1e12 + 20_000)
  const [point, unknown, ...more] = history.of('web')
  expect(more).toEqual([])
  expect(column(point!, 'dirtyPages')).toBeCloseTo(20)
  expect(column(point!, 'sentBytes')).toBeCloseTo(2)
  expect(column(point!, 'dictionaryBytes')).toBeCloseTo(12.8)
  expect([column(point!, 'pauseMs'), column(point!, 'pauseMsMax')]).toEqual([3, 5])
  // Another protection has begun.
  expect([column(unknown!, 'sentBytes'), column(unknown!, 'pauseMs')]).toEqual([null, null])
})

test('an hour is kept, and no more', () => {
  const history = new GuestHistory()
  for (let at = 0; at < 2 * 3600; at += 5) history.note(status(at), at * 1000, at * 1000)
  const points = history.of('web')
  expect(points).toHaveLength(720)
  expect(points.map((point) => point[0])).toEqual(points.map((point) => point[0]).toSorted((a, b) => a! - b!))
  expect(points.at(-1)![0]).toBe((2 * 3600 - 5) * 1000)
  history.forget('web')
  expect(history.of('web')).toEqual([])
})
