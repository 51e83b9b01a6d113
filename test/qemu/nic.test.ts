/** Network cards: what `--net` may say, and what follows from a guest's name. */
import { Value } from 'typebox/value'
import { describe, expect, test } from 'vitest'
import { limits } from '../../src/limits.ts'
import { addressed, Nic, netdevIds, nicOptions, parseNics, tapName } from '../../src/qemu/nic.ts'
import { bufferOptions } from '../../src/qemu/output-buffers.ts'

describe('--net', () => {
  test('a bridge, with or without an address, several times', () => {
    expect(parseNics('')).toEqual([])
    expect(parseNics('bridge=br0')).toEqual([{ bridge: 'br0' }])
    expect(parseNics('bridge=br0,mac=52:54:00:AB:cd:01,bridge=br1')).toEqual([
      { bridge: 'br0', mac: '52:54:00:ab:cd:01' },
      { bridge: 'br1' },
    ])
  })

  test.each([
    'br0',
    'bridge=',
    'bridge=a/b',
    'bridge=..',
    'bridge=br0 up',
    'bridge=sixteen-letters-',
    'bridge=br0,mac=01:00:5e:00:00:01',
    'bridge=br0,mac=52:54:00:00:00',
    'bridge=br0,script=/bin/sh',
    'bridge=br0,,mac=52:54:00:00:00:01',
  ])('refuses %s', (given) => {
    expect(() => parseNics(given)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  })
})

describe('addresses', () => {
  test('follow from the name, and are valid', () => {
    const nics = addressed('web', [{ bridge: 'br0' }, { bridge: 'br0' }])
    expect(nics).toEqual(
      addressed('web', [{ bridge: 'br1' }, { bridge: 'br1' }]).map((nic) => ({ ...nic, bridge: 'br0' })),
    )
    expect(new Set([...nics, ...addressed('db', [{ bridge: 'br0' }])].map(({ mac }) => mac)).size).toBe(3)
    for (const nic of nics) expect(Value.Check(Nic, nic), nic.mac).toBe(true)
  })

  test('stay as given', () => {
    expect(addressed('web', [{ bridge: 'br0', mac: '52:54:00:00:00:01' }])).toEqual([
      { bridge: 'br0', mac: '52:54:00:00:00:01' },
    ])
  })

  test('not for more cards than a guest may have', () => {
    const many = Array.from({ length: limits.networkCards.value + 1 }, () => ({ bridge: 'br0' }))
    expect(() => addressed('web', many)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
  })
})

test('taps have names that Linux takes, one for each card and host', () => {
  const names = ['/run/subpage/guests/web', '/run/subpage/guests/db', '/var/tmp/x/guests/web'].flatMap(
    (directory) => [0, limits.networkCards.value - 1].map((index) => tapName(directory, index)),
  )
  expect(new Set(names).size).toBe(names.length)
  for (const name of names) expect(name).toMatch(/^[a-z0-9-]{1,15}$/)
})

test('every network backend gets its buffers, those of the user too', () => {
  const nics = addressed('web', [{ bridge: 'br0' }])
  const options = ['-no-reboot', '-netdev', 'tap,id=mine,ifname=tap7', '-append', '-netdev']
  expect(netdevIds({ nics, options })).toEqual(['subpage-net0', 'mine'])
  expect(nicOptions(nics, '/run/x')).toContain(
    `tap,id=subpage-net0,ifname=${tapName('/run/x', 0)},script=no,downscript=no,vhost=off`,
  )
  const buffers = bufferOptions(['subpage-net0', 'mine']).filter((word) => word !== '-object')
  expect(buffers.map((text) => text.replace(/,queue=.*/, ''))).toEqual([
    'filter-buffer,id=held0,netdev=subpage-net0',
    'filter-buffer,id=fresh0,netdev=subpage-net0',
    'filter-buffer,id=held1,netdev=mine',
    'filter-buffer,id=fresh1,netdev=mine',
  ])
})
