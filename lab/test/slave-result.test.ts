/** The table of the active slave, from epochs that are made up. */
import { expect, test } from 'vitest'
import type { SlaveCell, SlaveEpoch } from '../src/sync/slave/measure.ts'
import { alike, middleSaving, saving, slaveTable } from '../src/sync/slave/result.ts'
import { askingBytes } from '../src/sync/slave/slave-cost.ts'

const each = (bytes: number) => ({
  'whole pages': bytes,
  lines: bytes,
  masked: bytes,
  '+ dictionary, zstd': bytes,
})

function epoch(without: number, others: number, slaveMs = 25): SlaveEpoch {
  return {
    dirtyPages: 10,
    changedPages: 8,
    differingPages: 2,
    without: each(without),
    with: each(others),
    slavePages: 12,
    primary: { ranUs: 25_000, processorUs: 25_000 },
    slave: { ranUs: 25_000, processorUs: 1000 * slaveMs },
  }
}

const cell = (workload: string, ...epochs: SlaveEpoch[]): SlaveCell => ({ workload, epochMs: 25, epochs })

test('epochs count in which the slave ran as long as the guest', () => {
  const one = cell('a', epoch(400, 100), epoch(200, 100, 29), epoch(9000, 1, 12), epoch(9000, 1, 60))
  expect(alike(one)).toHaveLength(2)
  expect(saving(one, 'masked')).toBe(3)
  expect(slaveTable([one]).rows).toEqual([
    ['a', '25 ms', '2 of 4', '8', '75 %', ...Array(4).fill('3.00x (2.00 … 4.00)')],
  ])
})

test('where none counts there is no figure, and where nothing is sent nothing is saved', () => {
  const none = cell('none', epoch(400, 100, 5))
  const nothing = cell('nothing', epoch(0, 0))
  expect(saving(none, 'lines')).toBeUndefined()
  expect(saving(nothing, 'lines')).toBe(1)
  expect(slaveTable([none]).rows[0]).toEqual(['none', '25 ms', '0 of 1', ...Array(6).fill('–')])
  expect(middleSaving([none, nothing, cell('a', epoch(600, 200))], 'lines')).toBe(2)
})

test('asking takes a hash and a bit for each page', () => {
  expect(askingBytes(0)).toBe(0)
  expect(askingBytes(9)).toBe(74)
})
