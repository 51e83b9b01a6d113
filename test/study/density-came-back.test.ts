/** How long pages stay away, when the measurement ends before they come back. */
import { expect, test } from 'vitest'
import { cameBack } from '../../src/study/density/result.ts'

test('a page that is still away counts for as long as it was seen', () => {
  expect(cameBack([1, 2, 3, 4], []).points).toEqual([
    [0, 0],
    [1, 0.25],
    [2, 0.5],
    [3, 0.75],
    [4, 1],
    [4, 1],
  ])
  // Of four pages one comes back after 1 s and one after 3 s, of two that are seen for that long; the other two are not.
  expect(cameBack([1, 3], [2, 5]).points).toEqual([
    [0, 0],
    [1, 0.25],
    [3, 0.625],
    [5, 0.625],
  ])
  expect(cameBack([], [7]).points.at(-1)).toEqual([7, 0])
})
