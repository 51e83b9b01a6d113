/** What a benchmark says of two ways: a difference only where the rounds agree on it. */
import { expect, test } from 'vitest'
import { differenceOf, spreadOf } from '../../bench/spread.ts'

test('the middle and the quartiles, of values that occurred', () => {
  expect(spreadOf([5, 1, 9, 3, 7])).toEqual({ median: 5, low: 3, high: 7 })
  expect(spreadOf([4])).toEqual({ median: 4, low: 4, high: 4 })
})

test('what the machine does beside it weighs on both ways of a round', () => {
  expect(differenceOf([11, 101, 51, 31], [10, 100, 50, 30])).toEqual({
    median: 1,
    low: 1,
    high: 1,
    told: true,
  })
  expect(differenceOf([9, 101, 49, 31], [10, 100, 50, 30])).toMatchObject({ told: false })
  expect(differenceOf([1, 1, 1, 90], [2, 2, 2, 2])).toMatchObject({ told: true, median: -1 })
  expect(differenceOf([3, 3], [3, 3])).toMatchObject({ told: false, median: 0 })
})
