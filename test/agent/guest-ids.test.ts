/** Ids of guests on a host: nothing is left of one that has left. */
import { expect, test } from 'vitest'
import { GuestIds } from '../../src/agent/guest-ids.ts'

test('a guest that has left has no id, and one that follows under its name has its own', () => {
  const ids = new GuestIds()
  ids.note('1', 'web')
  ids.note('2', 'db')
  // Another guest of that name asks to be let in: both are led to the one that is here.
  ids.note('3', 'web')
  expect([ids.nameOf('1'), ids.nameOf('3'), ids.idOf('web')]).toEqual(['web', 'web', '1'])
  ids.forget('web')
  expect([ids.nameOf('1'), ids.nameOf('3'), ids.idOf('web'), ids.idOf('db')]).toEqual([
    ...[undefined, undefined, undefined],
    '2',
  ])
  // What is kept by the id of the former is not for this one.
  ids.note('4', 'web')
  expect(ids.idOf('web')).toBe('4')
})
