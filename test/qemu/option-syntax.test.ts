/** How QEMU writes the values of its options. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { doubleCommas, parseOption } from '../../src/qemu/option-syntax.ts'

test('commas are doubled, the first word may be without its key, a later one is a switch', () => {
  expect(parseOption('virtio,a=1,,2,b,c=x=y,d=')).toEqual([
    { key: undefined, value: 'virtio' },
    { key: 'a', value: '1,2' },
    { key: 'b', value: 'on' },
    { key: 'c', value: 'x=y' },
    { key: 'd', value: '' },
  ])
})

test('what is doubled is read back', () => {
  fc.assert(
    fc.property(fc.string(), (value) => {
      expect(parseOption(`a=1,b=${doubleCommas(value)}`)).toEqual([
        { key: 'a', value: '1' },
        { key: 'b', value },
      ])
    }),
  )
})
