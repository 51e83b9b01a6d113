/** What the host reads from the victim's console: whole lines only, however the log is cut. */
import { expect, test } from 'vitest'
import { bootTrouble, victimLines } from '../../src/qemu/demo-guest.ts'

const line = (step: number) => `victim step=${step} pages=16 verify=1 digest=0123456789abcdef\n`
const whole = line(7) + line(8)

test('a line that is cut at either end is left out', () => {
  expect(victimLines(whole).map(({ step }) => step)).toEqual([7, 8])
  for (let end = line(7).length; end < whole.length; end++)
    expect(victimLines(whole.slice(0, end)).map(({ step }) => step)).toEqual([7])
  for (let start = 1; start <= line(7).length; start++)
    expect(victimLines(whole.slice(start)).map(({ step }) => step)).toEqual([8])
})

test('a guest that does not come up says why', () => {
  const killed = '[    4.334875] Out of memory: Killed process 106 (victim) total-vm:33760kB'
  expect(bootTrouble(`subpage-guest: ready\r\n${killed}\r\n`)).toBe(killed)
  expect(bootTrouble('[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs')).toMatch(
    /^\[ 1.0\] Kernel panic/,
  )
  expect(bootTrouble(whole)).toBeUndefined()
})
