/** The trial of a host, under KVM where it opens: no Linux need boot there. */
import { accessSync, constants } from 'node:fs'
import { expect, test } from 'vitest'
import { guestTrial, type TrialReport } from '../../src/agent/guest-trial.ts'
import { subpage } from '../support/subpage.ts'

function kvmOpens(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
    return true
  } catch {
    // This machine has none, or not for us: the trial runs with TCG.
    return false
  }
}

const accel = kvmOpens() ? 'kvm' : 'tcg'

test('a guest on two virtual CPUs is protected at full speed, taken over, whole, and protected back', async () => {
  const { status, out, said } = await subpage(['check', '--guest', '--accel', accel, '--json'])
  expect(status, out + said).toBe(0)
  const report: TrialReport & { host: object } = JSON.parse(out)
  expect(report.steps.map(({ name, ok }) => [name, ok])).toEqual(
    ['boot', 'protect', 'verify', 'failover', 'protect back', 'verify again'].map((name) => [name, true]),
  )
  expect(report).toMatchObject({ passed: true, accel, cpus: 2, tracker: 'userfault' })
  expect(report.checkpoints).toBeGreaterThanOrEqual(150)
  expect(report.dirtyPages).toBeGreaterThan(10)
  expect(report.failoverMs).toBeGreaterThan(0)
  expect(report.failoverMs).toBeLessThan(10_000)
})

test('what fails is the last step of the report, with its reason', async () => {
  const before = process.env.SUBPAGE_QEMU
  process.env.SUBPAGE_QEMU = '/bin/false'
  try {
    const report = await guestTrial({ accel: 'tcg', cpus: 1 }, new AbortController().signal)
    expect(report).toMatchObject({ passed: false, failoverMs: null, pauseUs: null })
    expect(report.steps).toEqual([
      { name: 'boot', ok: false, ms: expect.any(Number), found: expect.stringMatching(/^QEMU_FAILED: /) },
    ])
  } finally {
    if (before === undefined) delete process.env.SUBPAGE_QEMU
    else process.env.SUBPAGE_QEMU = before
  }
})
