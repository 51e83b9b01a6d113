/** A guest whose QEMU gives a new supervisor no answer: nothing waits for it for long, and a keeper that keeps it paused is ended. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { EventLog } from '../../src/agent/event-log.ts'
import type { HostFacts } from '../../src/agent/supervisor/host.ts'
import { UnansweredGuest } from '../../src/agent/supervisor/unanswered-guest.ts'
import type { GuestFiles } from '../../src/qemu/guest-files.ts'
import type { GuestRecord } from '../../src/qemu/guest-record.ts'
import { hangTimes } from '../../src/qemu/hang-watch.ts'
import type { AttachStep } from '../../src/qemu/qemu-process.ts'
import { realClock } from '../../src/replication/clock.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

function unanswered(isDense: boolean) {
  const events = new EventLog()
  const ended: boolean[] = []
  const host = {
    clock: realClock,
    events,
    density: { endIfStuck: async (pauses: boolean) => void ended.push(pauses) },
  }
  const record = { name: 'g', process: { pid: 7 }, ...(isDense && { density: {} }) }
  const guest = new UnansweredGuest(record as GuestRecord, {} as GuestFiles, host as unknown as HostFacts)
  let hung = false
  void guest.hung.then(() => {
    hung = true
  })
  return { guest, ended, said: () => events.recent().map(({ text }) => text), hung: () => hung }
}

test.each<[boolean, AttachStep, boolean[]]>([
  [true, 'unlock', [true]],
  [true, 'connect', [false]],
  [true, 'answer', [false]],
  [false, 'unlock', []],
])('dense: %s, it waits in %s', async (isDense, step, ended) => {
  const one = unanswered(isDense)
  one.guest.doing(step)
  await vi.advanceTimersByTimeAsync(hangTimes.hungMs - 1)
  expect([one.hung(), one.ended, one.said()]).toEqual([false, [], []])
  await vi.advanceTimersByTimeAsync(1)
  expect([one.hung(), one.ended]).toEqual([true, ended])
  expect(one.said()).toEqual([
    expect.stringMatching(/^hangs: QEMU \(process 7\) .* since this supervisor began/),
  ])
  expect(one.guest.error).toMatchObject({ code: 'GUEST_HUNG' })
})

test('one that has answered does not hang', async () => {
  const { guest, ended, said, hung } = unanswered(true)
  guest.doing('unlock')
  guest.close()
  await vi.advanceTimersByTimeAsync(2 * hangTimes.hungMs)
  expect([hung(), ended, said()]).toEqual([false, [], []])
})
