/** What the clocks of the two hosts say. Decisions about guests do not go by them; certificates, events and people do. */
import type { HostStatus } from '../../agent/status.ts'
import { formatTime } from '../sizes.ts'
import { type Finding, finding, type Patient } from './finding.ts'

/** What a person who reads the events of both hosts does not notice. */
const differMsMax = 1000

/** The clock of a host beside ours, by an answer that took `tookMs`; an older agent says nothing of it. */
export interface ClockReading {
  aheadMs: number
  withinMs: number
}

/** @param before, after ours, milliseconds since 1970 */
export function readingOf({ clock }: HostStatus, before: number, after: number): ClockReading | undefined {
  if (!(clock as HostStatus['clock'] | undefined)) return undefined
  return { aheadMs: clock.at - (before + after) / 2, withinMs: (after - before) / 2 }
}

export function clocksOf({ host, peer, clocks }: Patient): Finding[] {
  const hosts = [host, ...(typeof peer === 'string' ? [] : [peer.host])]
  const found = hosts
    .filter(({ clock }) => (clock as HostStatus['clock'] | undefined)?.synchronized === false)
    .map((one) =>
      finding(
        'warning',
        'clock-unsynchronized',
        `nothing keeps the clock of ${one.host} right`,
        'let NTP or PTP do it: certificates are taken for expired, or not valid yet, by a clock that is wrong',
        'timedatectl status',
      ),
    )
  if (clocks && Math.abs(clocks.aheadMs) > differMsMax + clocks.withinMs) {
    const [fast, slow] = clocks.aheadMs > 0 ? [hosts[1], host] : [host, hosts[1]]
    found.push(
      finding(
        'warning',
        'clocks-differ',
        `the clock of ${fast?.host} is ${formatTime(Math.round(Math.abs(clocks.aheadMs)))} ahead of that of ${slow?.host}`,
        'set them right: until then the events of the two hosts are in a wrong order, and a certificate may be refused by one of them',
        'timedatectl status',
      ),
    )
  }
  return found
}
