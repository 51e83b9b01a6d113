/**
 * The answer to /metrics: what `status` says, by the table of metrics, in Prometheus' text format. Agents keep no figures of their
 * own: each scrape asks the supervisors, as `status` does, and prom-client writes what they say.
 */
import { AggregatorRegistry } from 'prom-client'
import { durationBoundsUs } from '../replication/durations.ts'
import {
  type FigureMetric,
  figureMetrics,
  histogramMetrics,
  hostMetrics,
  isSafe,
  roles,
  stateMetrics,
  states,
  summaryMetrics,
} from './metrics-table.ts'
import type { GuestStatus, HostStatus } from './status.ts'

interface Value {
  value: number
  labels: Record<string, string | number>
  metricName?: string
}

interface Measured {
  name: string
  help: string
  type: string
  aggregator: 'first'
  values: Value[]
}

/** @returns the page of text, and its media type */
export async function metricsPage(host: HostStatus): Promise<{ type: string; text: string }> {
  const registry = AggregatorRegistry.aggregate([measure(host)])
  return { type: registry.contentType, text: await registry.metrics() }
}

function measure(host: HostStatus): Measured[] {
  const { guests } = host
  const found = new Map<string, Measured>()
  const add = (metric: { name: string; help: string; type: string }, values: Value[]) => {
    const { name, help, type } = metric
    const known = found.get(name)
    if (known) known.values.push(...values)
    else if (values.length > 0)
      found.set(name, { name, help, type, aggregator: 'first', values: [...values] })
  }
  const only = (value: number, labels: Value['labels'] = {}) => [{ value, labels }]

  add(hostMetrics.build, only(1, { host: host.host, release: host.release }))
  add(hostMetrics.memory, only(host.ownBytes))
  add(hostMetrics.arbiter, only(host.arbiter.trouble === null ? 1 : 0))
  if (host.clock.synchronized !== null) add(hostMetrics.clock, only(host.clock.synchronized ? 1 : 0))
  if (host.certificate) add(hostMetrics.expiry, only(Date.parse(host.certificate.validTo) / 1000))
  for (const role of roles)
    add(hostMetrics.guests, only(guests.filter((guest) => guest.role === role).length, { role }))

  for (const guest of guests) {
    const labels = { guest: guest.name }
    for (const state of new Set([...states, guest.state]))
      add(stateMetrics.state, only(guest.state === state ? 1 : 0, { ...labels, state }))
    for (const role of roles) add(stateMetrics.role, only(guest.role === role ? 1 : 0, { ...labels, role }))
    // A supervisor of an older release gives none.
    if (guest.reasonCode) add(stateMetrics.reason, only(1, { ...labels, code: guest.reasonCode }))
    add(stateMetrics.safe, only(isSafe(guest) ? 1 : 0, labels))
    add(stateMetrics.shim, only(guest.shimMissing === null ? 0 : 1, labels))
    if (guest.verified) add(stateMetrics.verified, only(guest.verified.equal ? 1 : 0, labels))
    if (guest.fence) add(stateMetrics.fence, only(guest.fence.on ? 1 : 0, labels))
    for (const metric of figureMetrics) add(metric, figures(guest, metric))
    for (const metric of summaryMetrics)
      add({ ...metric, type: 'summary' }, quantiles(guest, metric.from, labels))
    for (const metric of histogramMetrics) add({ ...metric, type: 'histogram' }, buckets(guest, metric))
  }
  return [...found.values()]
}

/** None where the guest has no such figure now. */
function figures(guest: GuestStatus, { from, scale = 1, labels }: FigureMetric): Value[] {
  const disk = /^disks\[\]\.(.+)$/.exec(from)?.[1]
  const of = (value: unknown, more: Value['labels']): Value[] =>
    typeof value === 'number'
      ? [{ value: value * scale, labels: { guest: guest.name, ...more, ...labels } }]
      : []
  if (disk === undefined) return of(at(guest, from), {})
  return guest.disks.flatMap((one) => of(at(one, disk), { disk: one.name }))
}

const at = (from: unknown, path: string): unknown =>
  path
    .split('.')
    .reduce<unknown>(
      (value, key) =>
        typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined,
      from,
    )

function quantiles(guest: GuestStatus, from: string, labels: Value['labels']): Value[] {
  const found = at(guest, from) as { p50: number; p99: number; max: number } | undefined
  if (!found) return []
  return Object.entries({ 0.5: found.p50, 0.99: found.p99, 1: found.max }).map(([quantile, us]) => ({
    value: us / 1e6,
    labels: { ...labels, quantile },
  }))
}

/** Cumulative, as Prometheus has them. */
function buckets(
  { name: guest, epochs }: GuestStatus,
  { name, from }: (typeof histogramMetrics)[number],
): Value[] {
  const durations = epochs?.durations?.[from]
  if (!durations) return []
  let sum = 0
  const values = durations.counts.map((count, index): Value => {
    sum += count
    const bound = durationBoundsUs[index]
    const le = bound === undefined ? '+Inf' : bound / 1e6
    return { metricName: `${name}_bucket`, value: sum, labels: { guest, le } }
  })
  return [
    ...values,
    { metricName: `${name}_sum`, value: durations.sumUs / 1e6, labels: { guest } },
    { metricName: `${name}_count`, value: sum, labels: { guest } },
  ]
}
