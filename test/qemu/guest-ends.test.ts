/** What QEMU's events make of an end, event by event; test/guest/guest-ends.test.ts has them from QEMU itself. */
import { expect, test } from 'vitest'
import { Announcement, shutdownCauses, silentEvents } from '../../src/qemu/guest-ends.ts'

const heard = (...events: [string, Record<string, unknown>?][]) => {
  const announcement = new Announcement()
  for (const [event, data] of events)
    announcement.heard({ event, ...(data && { data }), timestamp: { seconds: 0, microseconds: 0 } })
  return announcement.end?.how
}
const shutdown = (reason: string): [string, Record<string, unknown>] => ['SHUTDOWN', { guest: true, reason }]
const panicked = (action: string): [string, Record<string, unknown>] => ['GUEST_PANICKED', { action }]

test('nothing was said: nothing is known', () => {
  expect(heard()).toBeUndefined()
})

test.each<[string, string | undefined]>([
  ['guest-shutdown', 'powered-off'],
  ['guest-reset', 'powered-off'],
  ['subsystem-reset', 'powered-off'],
  ['guest-panic', 'panicked'],
  ['host-qmp-quit', 'stopped'],
  ['host-qmp-system-reset', 'stopped'],
  ['snapshot-load', 'stopped'],
  ['host-ui', 'stopped'],
  ['host-signal', 'died'],
  ['host-error', 'died'],
  ['none', 'died'],
  ['a reason of a later QEMU', 'died'],
])('SHUTDOWN, reason %s: %s', (reason, how) => {
  expect(heard(shutdown(reason))).toBe(how)
})

test.each<[string, string | undefined]>([
  ['run', undefined],
  ['pause', undefined],
  ['poweroff', 'panicked'],
  ['an action of a later QEMU', undefined],
])('GUEST_PANICKED, action %s: %s', (action, how) => {
  expect(heard(panicked(action))).toBe(how)
})

test.each<[string, string | undefined]>([
  ['reset', undefined],
  ['shutdown', undefined],
  ['pause', undefined],
  ['debug', undefined],
  ['none', undefined],
  ['inject-nmi', undefined],
  ['poweroff', 'powered-off'],
])('WATCHDOG, action %s: %s', (action, how) => {
  expect(heard(['WATCHDOG', { action }])).toBe(how)
})

test.each(['RESET', 'RESUME', 'WAKEUP'])('what was announced is forgotten when %s follows', (event) => {
  for (const cause of shutdownCauses) expect(heard(shutdown(cause), [event])).toBeUndefined()
  expect(heard(panicked('poweroff'), [event])).toBeUndefined()
  expect(heard(panicked('poweroff'), [event], shutdown('guest-panic'))).toBe('panicked')
})

test('events that say nothing of an end change nothing', () => {
  for (const event of [...silentEvents, 'AN_EVENT_OF_A_LATER_QEMU', 'toString']) {
    expect(heard([event])).toBeUndefined()
    expect(heard(shutdown('guest-shutdown'), [event])).toBe('powered-off')
  }
})

test('a signal after an end that was announced takes nothing back; after a reset it is a death', () => {
  // As libvirt ends a QEMU that stays when its guest has shut down (-no-shutdown).
  expect(heard(shutdown('guest-shutdown'), shutdown('host-signal'))).toBe('powered-off')
  expect(heard(shutdown('guest-shutdown'), ['RESET'], shutdown('host-signal'))).toBe('died')
  expect(heard(shutdown('host-signal'), shutdown('guest-shutdown'))).toBe('powered-off')
})
