/** What `verify` has found, for people. */
import { expect, test } from 'vitest'
import { differences, namedVerification } from '../../src/agent/verified.ts'

const memory = { epoch: 7, pages: 100, equal: false }
const named = [{ name: 'system' }, { name: 'data' }]

test('disks have their names, whatever their number', () => {
  const disks = [
    { disk: 1, bytes: 10, difference: 65_536 },
    { disk: 0, bytes: 20, missing: 'it has a thread of its own' },
  ]
  const verified = namedVerification({ ...memory, disks }, named)
  expect(verified.disks).toEqual([
    { name: 'data', bytes: 10, difference: 65_536 },
    { name: 'system', bytes: 20, missing: 'it has a thread of its own' },
  ])
  expect(differences(verified)).toEqual(['DIFFERENT: disk data, within the 64 KiB from byte 65536 on'])
})

test('memory comes first; what is equal or was not compared is no difference', () => {
  const difference = { page: 3, line: 5, in: 'image' as const }
  const disks = [{ name: 'data', bytes: 10, difference: 0 }]
  expect(differences({ difference, disks })).toEqual([
    'DIFFERENT: page 3, line 5 of the image',
    'DIFFERENT: disk data, within the 64 KiB from byte 0 on',
  ])
  expect(differences({ disks: [{ name: 'data', bytes: 10 }] })).toEqual([])
})
