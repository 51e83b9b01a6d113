/** What `status` says of a guest's disks. */
import { expect } from 'vitest'
import type { GuestStatus } from '../../src/agent/status.ts'

/** The guest and its disk are protected. */
export const whole = ({ state, disks: [disk] }: GuestStatus) =>
  state === 'Protected' && disk?.state === 'Protected'

/** What it cost to bring the copy up to the disk. */
export function expectLittleRead({ seeded, bytes }: GuestStatus['disks'][number]): void {
  expect(seeded?.by).toBe('map')
  expect(seeded!.readBytes).toBeLessThan(bytes / 8)
}
