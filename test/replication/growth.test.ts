/** What an agent keeps does not grow with how often guests are protected and unprotected, nor with how often one is verified. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { median } from '../../lab/src/report/statistics.ts'
import { compileProgram } from '../support/program.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-growth-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const slices = 5

interface Kept {
  heap: number
  native: number
  resident: number
}

/** In one slice: what stays behind grows in each, what is collected late or taken once does not. */
const growth = (found: Kept[], of: keyof Kept) => median(found.map((slice) => slice[of]))

/** The allocator takes memory from the kernel when it likes, more of it on a busy host: but not in each slice. */
const leastResident = (found: Kept[]) => Math.min(...found.map(({ resident }) => resident))

/** Machine code is on the heap, too, and is made for as long as a program runs: the child has none of it. */
const flags = ['--expose-gc', '--no-opt', '--no-sparkplug', '--no-flush-bytecode']
const program = compileProgram(join(import.meta.dirname, 'children/cycles.ts'), folder)

function grown(warmUps: number, cycles: number, verifications: number, leak = 0) {
  const args = [...flags, program, ...[warmUps, cycles, verifications, slices, leak].map(String)]
  const found: Record<'protections' | 'verified', Kept[]> = JSON.parse(
    execFileSync(process.execPath, args, { encoding: 'utf8' }),
  )
  console.log(JSON.stringify(found))
  return found
}

const heapEach = { protection: 5_000, verification: 50 }

test('hundreds of protections and verifications leave nothing behind', { timeout: 240_000 }, () => {
  // As many as in an hour in which a guest is protected anew every 14 seconds.
  const [cycles, verifications] = [250, 500]
  const { protections, verified } = grown(40, cycles, verifications)
  const [protectionsEach, verifiedEach] = [cycles / slices, verifications / slices]
  // A protection has buffers of 1 MiB, a shadow, three histograms and a dictionary: one that stayed would be seen in each.
  expect(growth(protections, 'heap')).toBeLessThan(protectionsEach * heapEach.protection)
  expect(growth(protections, 'native')).toBeLessThan(protectionsEach * 8_000)
  expect(leastResident(protections)).toBeLessThan(protectionsEach * 160_000)
  expect(growth(verified, 'heap')).toBeLessThan(verifiedEach * heapEach.verification)
  expect(growth(verified, 'native')).toBeLessThan(verifiedEach * 500)
})

test('a small array that each verification left behind would be seen', { timeout: 120_000 }, () => {
  const verifications = 250
  const { verified } = grown(10, 0, verifications, 96)
  expect(growth(verified, 'heap')).toBeGreaterThan((verifications / slices) * heapEach.verification)
})
