/** Which versions of QEMU a primary and a standby may have. */
import { describe, expect, test } from 'vitest'
import { refusalOfVersion, settledType } from '../../src/qemu/other-version.ts'

describe('versions of a pair', () => {
  const pairs: [primary: string, here: string, type: string, refused: RegExp | undefined][] = [
    ['7.2.22', '7.2.22', 'q35', undefined],
    ['7.2.22', '7.2.22', 'microvm', undefined],
    ['7.2.18', '7.2.22', 'pc-q35-7.2', undefined],
    ['7.2.22', '7.2.18', 'pc-i440fx-7.1,usb=off', undefined],
    ['8.1.0', '8.2.0', 'pc-q35-rhel9.4.0', undefined],
    ['7.2.18', '7.2.22', 'q35', /the machine type q35 may be another machine in each/],
    ['7.2.18', '7.2.22', 'microvm', /or start the guest with a type that has a version/],
    ['7.2.18', '7.2.22', 'usb=off,type=pc-q35-7.2', /may be another machine/],
    [
      '7.2.22',
      '10.0.8',
      'pc-q35-7.2',
      /runs QEMU 7.2.22, this host has 10.0.8: install the same major version/,
    ],
  ]
  test.each(pairs)('%s and %s, %s', (primary, here, type, refused) => {
    const refusal = refusalOfVersion(primary, here, type)
    if (refused) expect(refusal).toMatch(refused)
    else expect(refusal).toBeUndefined()
  })
})

test('an alias is what this QEMU takes it for, with its switches', () => {
  expect(settledType('q35', 'pc-q35-7.2-machine')).toBe('pc-q35-7.2')
  expect(settledType('pc,usb=off', 'pc-i440fx-7.2-machine')).toBe('pc-i440fx-7.2,usb=off')
  expect(settledType('microvm', 'microvm-machine')).toBe('microvm')
  expect(settledType('pc-q35-7.1', 'pc-q35-7.1-machine')).toBe('pc-q35-7.1')
  expect(settledType('usb=off,type=q35', 'pc-q35-7.2-machine')).toBe('usb=off,type=q35')
})
