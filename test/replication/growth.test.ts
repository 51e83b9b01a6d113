/** What an agent keeps does not grow with how often guests are protected and unprotected, nor with how often one is verified. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { compileProgram } from '../support/program.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-growth-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const mib = 2 ** 20
// As many as in an hour in which a guest is protected anew every 14 seconds.
const [warmUps, cycles, verifications] = [40, 250, 1_000]

test('hundreds of protections and verifications leave nothing behind', { timeout: 240_000 }, () => {
  const program = compileProgram(join(import.meta.dirname, 'children/cycles.ts'), folder)
  const args = ['--expose-gc', program, ...[warmUps, cycles, verifications].map(String)]
  const { protections, verified } = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }))
  console.log(JSON.stringify({ protections, verified }))
  // A protection has buffers of 1 MiB, a shadow, three histograms and a dictionary: one that stayed would be seen in each.
  expect(protections.heap).toBeLessThan(cycles * 5_000)
  expect(protections.native).toBeLessThan(2 * mib)
  expect(protections.resident).toBeLessThan(40 * mib)
  expect(verified.heap).toBeLessThan(verifications * 600)
  expect(verified.native).toBeLessThan(2 * mib)
})
