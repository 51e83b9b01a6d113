/** What `subpage doctor` finds, and in what. */
import type { HostDensityStatus } from '../../agent/density-status.ts'
import type { GuestStatus, HostStatus } from '../../agent/status.ts'
import type { ErrorCode } from '../../errors.ts'

export const severities = ['critical', 'warning', 'note'] as const
export type Severity = (typeof severities)[number]

export interface Finding {
  /**
   * critical: the guest would not outlive its host now, or is wrong; warning: it may not, or its clients may notice; note: worth
   * knowing.
   */
  severity: Severity
  /** For programs; stays the same. */
  id: string
  /** What status says of it, where it is the guest's state: docs/errors.md says what to do. */
  code?: ErrorCode
  problem: string
  remedy: string
  /** What to type, where one command does it. */
  command?: string
}

export interface Patient {
  host: HostStatus
  guest: GuestStatus
  density?: HostDensityStatus
  /** The other host; a text says why it was not asked. */
  peer: { host: HostStatus; guest: GuestStatus | undefined } | string
  /** How far the clock of the other host is ahead, milliseconds, and how wrong that may be; undefined where it was not asked. */
  clocks?: { aheadMs: number; withinMs: number }
  /** Milliseconds since 1970. */
  now: number
}

export const finding = (
  severity: Severity,
  id: string,
  problem: string,
  remedy: string,
  command?: string,
): Finding => ({
  ...{ severity, id, problem, remedy },
  ...(command !== undefined && { command }),
})

export const dayMs = 86_400_000
