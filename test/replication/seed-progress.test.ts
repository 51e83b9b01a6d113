/** How far seeding is: the figures that protect and status show. */
import { expect, test } from 'vitest'
import { realClock } from '../../src/replication/clock.ts'
import { noDisks } from '../../src/replication/disks.ts'
import { SeedProgress } from '../../src/replication/seed-progress.ts'

test('counts disks and memory, each round on top, and says what is left at the rate so far', () => {
  let now = 0
  const clock = { ...realClock, now: () => now }
  const disks = { ...noDisks, sizes: [600], fedBytes: 0, feedBytes: 600 }
  const progress = new SeedProgress(clock, disks, 400)
  expect(progress.figures).toEqual({ doneBytes: 0, totalBytes: 1000, bytesPerSecond: 0, secondsLeft: null })
  now = 2000
  disks.fedBytes = 600
  expect(progress.figures).toEqual({
    doneBytes: 600,
    totalBytes: 1000,
    bytesPerSecond: 300,
    secondsLeft: 4 / 3,
  })
  // It is known now what differs.
  progress.expect(200)
  progress.add(200)
  progress.expect(50)
  expect(progress.figures).toMatchObject({ doneBytes: 800, totalBytes: 850 })
  progress.add(50)
  expect(progress.figures).toMatchObject({ doneBytes: 850, totalBytes: 850, secondsLeft: 0 })
})
