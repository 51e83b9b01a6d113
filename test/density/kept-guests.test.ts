/** Domains of trust: who shares with whom, also after a restart, and never by accident. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { KeptGuest } from '../../src/density/keeper-protocol.ts'
import { KeptGuests } from '../../src/density/kept-guests.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-kept-'))
const file = join(directory, 'guests.json')
afterAll(() => rmSync(directory, { recursive: true }))

const guest = (id: string, trustDomain?: string): KeptGuest => ({
  id,
  name: id,
  ramPath: '',
  ramPages: 1,
  process: { pid: 1, startTime: '1' },
  shimStatusPath: '',
  leasePath: '',
  ...(trustDomain === undefined ? {} : { trustDomain }),
})

test('guests share within the domain that they name, and alone without one', () => {
  const kept = new KeptGuests(file)
  const [alone, other, first] = [guest('a'), guest('b'), guest('c', 'shop')].map((one) => kept.enter(one))
  expect(new Set([alone, other, first]).size).toBe(3)
  expect(kept.enter(guest('d', 'shop'))).toBe(first)
  // It stays where it is, whatever it says later.
  expect(kept.enter(guest('a', 'shop'))).toBe(alone)
})

test('numbers outlive a restart, and are given again only when nobody has them', () => {
  const kept = new KeptGuests(file)
  expect(kept.all.map(({ guest: { id } }) => id)).toEqual(['a', 'b', 'c', 'd'])
  const shop = kept.enter(guest('c', 'shop'))
  kept.leave('c')
  expect(kept.enter(guest('e', 'shop'))).toBe(shop)
  kept.leave('d')
  kept.leave('e')
  expect(new KeptGuests(file).enter(guest('f', 'bank'))).toBe(shop)
})
