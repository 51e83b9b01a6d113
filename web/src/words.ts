/** Figures and states in words. */
import type { GuestStatus } from '../../src/agent/status.ts'

export type Tone = 'good' | 'busy' | 'bad' | 'calm'

/** Another agent of this machine is reached by its state directory. */
export const directoryOf = (peer: string) => peer.replace(/\/pair\.sock$/, '')

/** The other host, by its name where that is known; null without one. */
export function hostOf({ peer, peerHost }: GuestStatus): string | null {
  const host = peerHost ?? peer
  return host === null ? null : directoryOf(host)
}

/** How much a guest wants to be looked at. */
export function toneOf({ role, state, arbiterTrouble, takeover, peer }: GuestStatus): Tone {
  if (state === 'Failed' || state === 'Hung') return 'bad'
  if (role === 'Alone' && (peer !== null || takeover !== null)) return 'bad'
  if (role === 'Alone') return 'calm'
  if (state === 'Protected') return arbiterTrouble === null ? 'good' : 'bad'
  return 'busy'
}

const urgency: Record<Tone, number> = { bad: 0, busy: 1, calm: 2, good: 3 }

/** What wants to be looked at comes first. */
export const byUrgency = (a: GuestStatus, b: GuestStatus) =>
  urgency[toneOf(a)] - urgency[toneOf(b)] || a.name.localeCompare(b.name)

export function reasonOf(guest: GuestStatus): string {
  const { role, state, reason, reasonCode, takeover } = guest
  if (reason !== '' && reasonCode !== 'NOT_PROTECTED') return reason
  if (role === 'Standby') return `waits here to take over from ${hostOf(guest) ?? ''}`
  if (state === 'Protected') return `${hostOf(guest) ?? ''} could take over now`
  if (takeover) return `runs here since a failover, and has no standby`
  if (state === 'Running') return 'has no standby'
  return reason
}

export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let [rest, unit] = [value, 0]
  while (rest >= 1000 && unit < units.length - 1) [rest, unit] = [rest / 1024, unit + 1]
  return `${number(rest)} ${units[unit]}`
}

export const rate = (value: number) => `${bytes(value)}/s`

export function number(value: number): string {
  if (value === 0) return '0'
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en').replaceAll(',', '\u202f')
  return String(Number(value.toPrecision(Math.abs(value) >= 100 ? 3 : 2)))
}

export function time(ms: number): string {
  if (ms < 1000) return `${number(ms)} ms`
  if (ms < 120_000) return `${number(ms / 1000)} s`
  return `${number(ms / 60_000)} min`
}
