/** What `doctor` says of each thing that can be wrong, from status alone. Real guests are in test/guest/metrics.test.ts. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { diskStatus } from '../../src/agent/disk-status.ts'
import { type GuestStatus, type HostStatus, unprotected } from '../../src/agent/status.ts'
import { readingOf } from '../../src/cli/doctor/clocks.ts'
import { diagnose } from '../../src/cli/doctor/diagnose.ts'
import { type Patient, severities } from '../../src/cli/doctor/finding.ts'
import { packageRoot } from '../../src/memory/native.ts'
import { DurationStats } from '../../src/replication/durations.ts'

const now = Date.parse('2026-11-29T12:00:00Z')
const dayMs = 86_400_000
const percentiles = { p50: 1000, p99: 2000, max: 3000 }
const none = new DurationStats().counted

const healthy: GuestStatus = {
  ...unprotected,
  ...{ name: 'web', role: 'Primary', state: 'Protected', reason: '', reasonCode: null },
  ...{ peer: 'beta:7475' },
  ...{ ramBytes: 2 ** 30, auxBytes: 0, accel: 'kvm', qemu: '7.2.1', pid: 7, console: '', consoleSocket: '' },
  ...{ firmware: null, vnc: null, disks: [diskStatus({ name: 'root', bytes: 4096, path: '/d' }, false)] },
  ...{ tracker: 'userfault', codec: 'masked', epochMs: 25, outputs: 'held', generation: 1 },
  ...{ fence: { on: true, silenced: 0 }, shimMissing: null, arbiter: 'etcd' },
  supervisor: { process: 8, ownBytes: 1, loopDelayMs: 3 },
  verified: { at: now - dayMs, equal: true },
  epochs: {
    ...{
      checkpoints: 1000,
      failed: 1,
      dirtyPages: 1,
      changedLines: 1,
      earlyPages: 0,
      earlyPagesAgain: 0,
      sharedCaptures: 0,
    },
    ...{
      pauseUs: percentiles,
      ownUs: percentiles,
      harvestUs: percentiles,
      stopFlushUs: percentiles,
      commitUs: percentiles,
    },
    ...{
      gapUs: percentiles,
      amplification: null,
      lagMs: 25,
      cost: null,
      durations: { pause: none, commit: none },
    },
    bytes: { dirtyPages: 1, changedLines: 2, delta: 3, sent: 4, final: 5 },
  },
}
const certificate = (days: number) => ({
  name: 'alpha',
  validTo: new Date(now + days * dayMs).toISOString(), // No wall clock: a time of the test's.
})
const host: HostStatus = {
  ...{ host: 'alpha', release: '0.1.0', pid: 1, address: 'alpha:7475', certificate: certificate(300) },
  ...{ arbiter: { description: 'etcd', trouble: null }, ownBytes: 1, guests: [healthy] },
  clock: { at: now, synchronized: true },
}
const standby: GuestStatus = { ...healthy, role: 'Standby', verified: null, peer: 'alpha' }
const there = { ...host, host: 'beta', guests: [standby] }
const patient: Patient = { host, guest: healthy, peer: { host: there, guest: standby }, now }

const guest = (changes: Partial<GuestStatus>): Patient => ({ ...patient, guest: { ...healthy, ...changes } })
const peer = (changes: Partial<GuestStatus>, of: Partial<HostStatus> = {}): Patient => ({
  ...patient,
  peer: { host: { ...there, ...of }, guest: { ...standby, ...changes } },
})
const disk = (
  lastError: string,
  lastErrorCode: GuestStatus['disks'][number]['lastErrorCode'] = 'DISK_FAILED',
) => ({
  ...healthy.disks[0]!,
  errors: 3,
  ...{ lastError, lastErrorCode },
})
const seeding = { doneBytes: 1, totalBytes: 2, bytesPerSecond: 1, secondsLeft: 61 }

const cases: [id: string, of: Patient][] = [
  ['hung', guest({ state: 'Hung', reason: 'since 12:00' })],
  ['ended', guest({ role: 'Alone', state: 'Failed', pid: null, peer: null, supervisor: null })],
  ['standby-failed', guest({ role: 'Standby', state: 'Failed', reason: 'QEMU refused' })],
  ['unprotectable', guest({ role: 'Alone', state: 'Failed', reason: 'PEER_MISMATCH' })],
  ['devices-differ', guest({ role: 'Alone', state: 'Failed', reason: 'others', devicesDiffer: true })],
  [
    'unprotectable',
    guest({ role: 'Alone', state: 'Failed', reasonCode: 'GUEST_UNPROTECTABLE', devicesDiffer: true }),
  ],
  ['not-protected', guest({ role: 'Alone', state: 'Running', peer: null })],
  ['seeding', guest({ state: 'Seeding', seeding })],
  ['connecting', guest({ role: 'Alone', state: 'Connecting' })],
  ['lagging', guest({ state: 'Lagging' })],
  ['state', guest({ state: 'Paused' })],
  ['differs', guest({ verified: { at: now, equal: false } })],
  ['not-verified', guest({ verified: null })],
  ['not-verified', guest({ verified: { at: now - 31 * dayMs, equal: true } })],
  ['arbiter-trouble', guest({ arbiterTrouble: 'no answer' })],
  ['arbiter-trouble', { ...patient, host: { ...host, arbiter: { description: 'etcd', trouble: 'down' } } }],
  ['arbiter-not-shared', guest({ arbiter: null })],
  ['disk-errors', guest({ disks: [disk('write: Input/output error')] })],
  ['disk-cuts', guest({ disks: [{ ...healthy.disks[0]!, cuts: 2 }] })],
  ['certificate-expired', { ...patient, host: { ...host, certificate: certificate(-1) } }],
  ['certificate-expires', { ...patient, host: { ...host, certificate: certificate(29) } }],
  ['no-supervisor', guest({ supervisor: null })],
  ['loop-delay', guest({ supervisor: { process: 8, ownBytes: 1, loopDelayMs: 400 } })],
  ['shim-missing', guest({ shimMissing: 'the shim: nothing is tracked' })],
  ['fence-off', guest({ fence: { on: false, silenced: 0 } })],
  ['outputs-free', guest({ outputs: 'free' })],
  ['density', { ...patient, density: { guests: [], store: null, keeper: null, error: 'no room' } }],
  ['checkpoints-fail', guest({ epochs: { ...healthy.epochs!, failed: 100 } })],
  ['costly', guest({ epochs: { ...healthy.epochs!, cost: { pauses: 0.3, faults: 0.2, outputWaitMs: 20 } } })],
  ['peer-unknown', { ...patient, peer: 'no agent answers' }],
  ['releases-differ', peer({}, { release: '0.0.9' })],
  ['peer-has-none', { ...patient, peer: { host: there, guest: undefined } }],
  ['peer-has-none', peer({ role: 'Alone', state: 'Running' })],
  ['qemu-differs', peer({ qemu: '7.2.2' })],
  ['peer-failed', peer({ state: 'Failed', reason: 'disk full' })],
  ['disk-errors', peer({ disks: [disk('write: No space left on device', 'DISK_FULL')] })],
  ['certificate-expires', peer({}, { certificate: certificate(3) })],
  ['clock-unsynchronized', peer({}, { clock: { at: now, synchronized: false } })],
  ['clocks-differ', { ...patient, clocks: { aheadMs: -3000, withinMs: 20 } }],
]

test('of a guest that is well, nothing', () => {
  expect(diagnose(patient)).toEqual([])
})

test.each(cases)('%s, and nothing else', (id, of) => {
  const found = diagnose(of)
  expect(found.map((finding) => finding.id)).toEqual([id])
  const { severity, problem, remedy, command } = found[0]!
  expect(severities).toContain(severity)
  expect(problem).toMatch(/\w/)
  expect(remedy).toMatch(/\w/)
  // The first word is a program of this host.
  if (command !== undefined) expect(command).toMatch(/^(subpage [a-z-]+|df |timedatectl )/)
})

test('every finding of the code is tried', () => {
  const code = ['state', 'host', 'clocks']
    .map((name) => readFileSync(join(packageRoot, 'src/cli/doctor', `${name}.ts`), 'utf8'))
    .join('')
  const ids = [...code.matchAll(/(?:critical\(|(?:finding|add)\(\s*[^,]*,)\s*'([a-z-]+)'/g)].map(
    ([, id]) => id!,
  )
  expect(new Set(ids)).toEqual(new Set(cases.map(([id]) => id)))
})

test('clocks are compared as well as they were read, and by their hosts', () => {
  const before = now
  const far = readingOf({ ...host, clock: { at: now + 5000, synchronized: true } }, before, before + 200)
  expect(far).toEqual({ aheadMs: 4900, withinMs: 100 })
  // An agent of an older release.
  expect(readingOf({ ...host, clock: undefined } as never, before, before)).toBeUndefined()
  const of = (aheadMs: number, withinMs: number) => diagnose({ ...patient, clocks: { aheadMs, withinMs } })
  expect(of(1500, 600)).toEqual([])
  expect(of(3000, 600)[0]!.problem).toBe('the clock of beta is 3 s ahead of that of alpha')
  expect(of(-3000, 0)[0]!.problem).toBe('the clock of alpha is 3 s ahead of that of beta')
})

test('what status says of its state has a code of the table of errors, which the finding names', () => {
  const [found] = diagnose(
    guest({ state: 'Connecting', reason: 'no route to host', reasonCode: 'PEER_UNREACHABLE' }),
  )
  expect(found).toMatchObject({ id: 'connecting', code: 'PEER_UNREACHABLE' })
  const [alone] = diagnose(
    guest({ role: 'Alone', state: 'Running', reason: 'in any words', reasonCode: 'NOT_PROTECTED' }),
  )
  expect(alone).toMatchObject({ problem: 'it is not protected', code: 'NOT_PROTECTED' })
})

test('the worst comes first', () => {
  const found = diagnose({
    ...guest({
      outputs: 'free',
      verified: null,
      arbiterTrouble: 'no answer',
      // Its words are for people: another language, or another QEMU, has others.
      disks: [disk('write: no room', 'DISK_FULL')],
    }),
    peer: 'not asked',
  })
  expect(found.map(({ severity, id }) => `${severity} ${id}`)).toEqual([
    'critical arbiter-trouble',
    'critical disk-errors',
    'warning outputs-free',
    'note not-verified',
    'note peer-unknown',
  ])
})
