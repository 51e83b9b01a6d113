/** The units in packaging/: systemd understands every line of them, and exposes little. */
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { packageRoot } from '../src/package-root.ts'

const from = join(packageRoot, 'packaging')
const units = readdirSync(from).filter((name) => name.endsWith('.service'))
const folder = mkdtempSync(join(tmpdir(), 'subpage-units-'))
beforeAll(() => {
  for (const unit of units) copyFileSync(join(from, unit), join(folder, unit))
})
afterAll(() => rmSync(folder, { recursive: true }))

const analyze = (...args: string[]) => {
  const { status, stdout, stderr, error } = spawnSync('systemd-analyze', args, {
    encoding: 'utf8',
    env: { ...process.env, SYSTEMD_UNIT_PATH: `${folder}:` },
  })
  if (error)
    throw new Error('systemd-analyze does not start (Debian: apt-get install systemd)', { cause: error })
  return { status, said: stdout + stderr }
}

test.each(units)('%s has no line that systemd does not know', (unit) => {
  const { said } = analyze('verify', '--man=no', join(folder, unit))
  // What it says of other units of this machine is not ours.
  expect(said.split('\n').filter((line) => line.includes(unit))).toEqual([])
})

test.each(units)('%s exposes no more than it must', (unit) => {
  const { status, said } = analyze(
    'security',
    '--no-pager',
    '--offline=true',
    '--threshold=60',
    join(folder, unit),
  )
  expect({ status, said }).toMatchObject({ status: 0, said: expect.stringMatching(/Overall exposure level/) })
})

test('the agent is told apart from its guests: what says that it serves, and what ends, is the agent alone', () => {
  const unit = readFileSync(join(from, 'subpage-agent.service'), 'utf8')
  for (const line of ['Type=notify', 'NotifyAccess=main', 'KillMode=process', 'RuntimeDirectoryPreserve=yes'])
    expect(unit.split('\n')).toContain(line)
})

test('an agent that fails for however long is started again, and a host that is shut down moves its guests first', () => {
  const lines = (unit: string) => readFileSync(join(from, unit), 'utf8').split('\n')
  expect(lines('subpage-agent.service')).toEqual(
    expect.arrayContaining(['StartLimitIntervalSec=0', 'Restart=always']),
  )
  const drain = lines('subpage-drain.service')
  expect(drain).toContainEqual(expect.stringMatching(/^After=(.* )?subpage-agent\.service( |$)/))
  expect(drain).toContainEqual(expect.stringMatching(/^ExecStop=-?\S.* subpage drain$/))
})
