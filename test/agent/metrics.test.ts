/**
 * The table of metrics against the schema of `status`, and what is written by it against Prometheus' own reader. A real scrape of
 * real guests is in test/guest/metrics.test.ts.
 */
import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { diskStatus } from '../../src/agent/disk-status.ts'
import { metricsPage } from '../../src/agent/metrics.ts'
import {
  figureMetrics,
  histogramMetrics,
  isSafe,
  noMetric,
  states,
  summaryMetrics,
} from '../../src/agent/metrics-table.ts'
import { GuestStatus, type HostStatus, unprotected } from '../../src/agent/status.ts'
import { DurationStats, durationBoundsUs } from '../../src/replication/durations.ts'

interface Schema {
  type?: string
  properties?: Record<string, Schema>
  items?: Schema
  anyOf?: Schema[]
}

/** Paths of all numbers in a schema. */
function numbers({ type, properties, items, anyOf }: Schema, path = ''): string[] {
  if (type === 'number' || type === 'integer') return [path]
  const under = (key: string) => (path === '' ? key : `${path}.${key}`)
  return [
    ...Object.entries(properties ?? {}).flatMap(([key, schema]) => numbers(schema, under(key))),
    ...(items ? numbers(items, `${path}[]`) : []),
    ...(anyOf ?? []).flatMap((schema) => numbers(schema, path)),
  ]
}

const paths = numbers(GuestStatus as Schema)

const withDefaults: GuestStatus = {
  ...unprotected,
  ...{
    name: 'web "1"\n',
    role: 'Alone',
    state: 'Running',
    reason: 'not protected',
    reasonCode: 'NOT_PROTECTED',
  },
  ...{ ramBytes: 2 ** 30, auxBytes: 0, accel: 'tcg', qemu: '7', pid: 1, console: '', consoleSocket: '' },
  ...{
    firmware: null,
    suspended: false,
    devicesDiffer: false,
    vnc: null,
    shimMissing: null,
    generation: 1,
    supervisor: null,
  },
  disks: [{ ...diskStatus({ name: 'root', bytes: 4096, path: '/d' }, false), errors: 3 }],
}

const pause = new DurationStats()
for (const us of [400, 500, 501, 20_000_000]) pause.add(us)
const percentiles = { p50: 2000, p99: 3000, max: 4000 }
const guarded: GuestStatus = {
  ...withDefaults,
  ...{ name: 'mail', role: 'Primary', state: 'Protected', reason: '', reasonCode: null },
  ...{ verified: { at: 5000, equal: true } },
  fence: { on: true, silenced: 7 },
  epochs: {
    ...{
      checkpoints: 4,
      failed: 1,
      dirtyPages: 9,
      changedLines: 8,
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
    ...{ gapUs: percentiles, amplification: null, lagMs: 25, cost: null },
    durations: { pause: pause.counted, commit: new DurationStats().counted },
    bytes: { dirtyPages: 1, changedLines: 2, delta: 3, sent: 4, final: 5 },
  },
}
const host: HostStatus = {
  ...{ host: 'alpha', release: '1.2.3', pid: 1, address: 'x', ownBytes: 5e7 },
  certificate: { name: 'alpha', validTo: '2030-01-01T00:00:00.000Z' },
  arbiter: { description: 'etcd', trouble: null },
  clock: { at: 1.7e12, synchronized: true },
  guests: [withDefaults, guarded],
}
const { text } = await metricsPage(host)
const lines = text.split('\n')

describe('the table', () => {
  test('leaves out no figure of status: it is in src/agent/metrics-table.ts, or named there among those that are no metric', () => {
    const covered = new Set([
      ...figureMetrics.map(({ from }) => from),
      ...Object.keys(noMetric),
      ...summaryMetrics.map(({ from }) => from),
      ...histogramMetrics.map(({ from }) => `epochs.durations.${from}`),
    ])
    const isCovered = (path: string) =>
      covered.has(path) || covered.has(path.replace(/\.(p50|p99|max|counts\[\]|sumUs)$/, ''))
    expect(paths.length).toBeGreaterThan(60)
    expect(paths.filter((path) => !isCovered(path))).toEqual([])
  })

  test('names no figure that status has not', () => {
    const known = new Set(paths)
    const strange = [...figureMetrics.map(({ from }) => from), ...Object.keys(noMetric)].filter(
      (path) => !known.has(path) && !known.has(`${path}.p50`),
    )
    expect(strange).toEqual([])
  })
})

test("promtool finds nothing to say against the page: types, units, names, and a guest's name of any form", () => {
  const { status, stdout, stderr, error } = spawnSync('promtool', ['check', 'metrics'], {
    input: text,
    encoding: 'utf8',
  })
  expect(error, 'promtool (Debian: apt-get install prometheus)').toBeUndefined()
  expect({ status, said: stdout + stderr }).toEqual({ status: 0, said: '' })
})

test('figures come in base units; what a guest has not is not there', () => {
  for (const line of [
    'subpage_clock_synchronized 1',
    'subpage_build_info{host="alpha",release="1.2.3"} 1',
    'subpage_certificate_expiry_timestamp_seconds 1893456000',
    'subpage_guest_lag_seconds{guest="mail"} 0.025',
    'subpage_guest_own_pause_seconds{guest="mail",quantile="0.99"} 0.003',
    'subpage_guest_disk_errors_total{guest="mail",disk="root"} 3',
    'subpage_guest_checkpoint_bytes_total{guest="mail",what="sent"} 4',
    'subpage_guest_safe{guest="mail"} 1',
    'subpage_guests{role="Primary"} 1',
    'subpage_guest_reason{guest="web \\"1\\"\\n",code="NOT_PROTECTED"} 1',
  ])
    expect(lines).toContain(line)
  expect(text).not.toContain('subpage_guest_amplification')
  expect(text).not.toContain('subpage_guest_reason{guest="mail"')
  expect(lines.filter((line) => line.startsWith('subpage_guest_lag_seconds{'))).toHaveLength(1)
})

test('a histogram counts each duration once, and its buckets are cumulative', () => {
  const bucket = (le: string | number) => `subpage_guest_pause_seconds_bucket{guest="mail",le="${le}"}`
  expect(lines).toContain(`${bucket(0.0005)} 2`)
  expect(lines).toContain(`${bucket(0.001)} 3`)
  expect(lines).toContain(`${bucket(durationBoundsUs.at(-1)! / 1e6)} 3`)
  expect(lines).toContain(`${bucket('+Inf')} 4`)
  expect(lines).toContain('subpage_guest_pause_seconds_count{guest="mail"} 4')
  expect(lines).toContain('subpage_guest_pause_seconds_sum{guest="mail"} 20.001401')
})

test('a guest is in one state and one role, and a state that the table does not know is there as well', async () => {
  const strange = { ...withDefaults, name: 'x', state: 'Paused' }
  const page = await metricsPage({ ...host, guests: [strange] })
  const of = (name: string) => page.text.split('\n').filter((line) => line.startsWith(`${name}{`))
  expect(of('subpage_guest_state')).toHaveLength(states.length + 1)
  expect(of('subpage_guest_state').filter((line) => line.endsWith(' 1'))).toEqual([
    'subpage_guest_state{guest="x",state="Paused"} 1',
  ])
  expect(of('subpage_guest_role').filter((line) => line.endsWith(' 1'))).toHaveLength(1)
})

test('nothing is safe without somebody who decides', () => {
  expect(isSafe(guarded)).toBe(true)
  for (const change of [{ arbiterTrouble: 'x' }, { state: 'Lagging' }, { role: 'Alone' as const }])
    expect(isSafe({ ...guarded, ...change })).toBe(false)
})
