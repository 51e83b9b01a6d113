/** How long pages stay away, when the measurement ends before they come back. */
import { expect, test } from 'vitest'
import { cameBack } from '../src/density/result.ts'

test('a page that is still away counts for as long as it was seen', () => {
  expect(cameBack({ came: [1, 2, 3, 4], still: [] })).toEqual([
    [0, 0],
    [1, 0.25],
    [2, 0.5],
    [3, 0.75],
    [4, 1],
    [4, 1],
  ])
  // Of four pages one comes back after 1 s and one after 3 s, of two that are seen for that long; the other two are not.
  expect(cameBack({ came: [1, 3], still: [2, 5] })).toEqual([
    [0, 0],
    [1, 0.25],
    [3, 0.625],
    [5, 0.625],
  ])
  expect(cameBack({ came: [], still: [7] }).at(-1)).toEqual([7, 0])
})
