/** The records that a guest under torture has said, and what is on its disk: one that is missing is found, wherever the guest is on its way round. */
import { expect, test } from 'vitest'
import { diskBytes, recordsWrong } from '../../bench/torture/witnesses.ts'

const recordBytes = 512
const sectors = diskBytes / recordBytes

/** After so many records, each where the guest puts it. */
function diskAfter(last: number): Buffer {
  const disk = Buffer.alloc(diskBytes)
  for (let number = Math.max(1, last - sectors + 1); number <= last; number++)
    disk.write(`${String(number).padStart(511, '0')}\n`, (number % sectors) * recordBytes, 'latin1')
  return disk
}

test.each([1, 100, sectors - 1, sectors, sectors + 1, 2.5 * sectors])('after %d records', (last) => {
  const disk = diskAfter(last)
  expect(recordsWrong(disk, last)).toBeUndefined()
  // It has written on since it spoke.
  if (last > 20) expect(recordsWrong(disk, last - 20)).toBeUndefined()
  expect(recordsWrong(disk, last + 1)).toMatch(
    new RegExp(`record ${last + 1} of ${last + 1} is not on the disk`),
  )
  const oldest = Math.max(1, last - sectors + 1)
  for (const number of [oldest, last]) {
    const lost = Buffer.from(disk)
    lost.fill(0, (number % sectors) * recordBytes, ((number % sectors) + 1) * recordBytes)
    expect(recordsWrong(lost, last)).toMatch(new RegExp(`record ${number} of ${last} is not on the disk`))
  }
})
