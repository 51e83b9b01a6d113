/** What fails while a page is told of a host is told to it, or to nobody; the others are told. */
import { expect, test } from 'vitest'
import { type LiveMessage, LiveStatus } from '../../src/agent/live-status.ts'
import type { HostStatus } from '../../src/agent/status.ts'

test('a status that cannot be shown is told as an error, and a viewer that cannot be told keeps it from no other', async () => {
  // Of such a guest there is nothing to draw.
  const live = new LiveStatus(async () => ({ guests: [null] }) as unknown as HostStatus)
  let calls = 0
  const broken = live.follow(() => {
    calls++
    throw new Error('the connection is gone')
  })
  const told: LiveMessage[] = []
  await new Promise<void>((resolve) => {
    const end = live.follow((message) => {
      told.push(message)
      if (told.length < 2) return
      end()
      resolve()
    })
  })
  broken()
  expect(told).toEqual(Array(2).fill({ code: 'INTERNAL', message: expect.any(String) }))
  expect(calls).toBe(1)
})
