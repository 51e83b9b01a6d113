/** Sizes and times as people read and write them: KiB, MiB, GiB; µs, ms, s. */
import { SubpageError } from '../errors.ts'

export { formatBytes, formatUs } from '../units.ts'

const units: Record<string, number> = { '': 2 ** 20, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/** Reads "512M", "2GiB", "512" (MiB, as QEMU's -m). @throws SubpageError BAD_ARGUMENT */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim())
  const bytes = match ? Number(match[1]) * (units[(match[2] ?? '').toUpperCase()] ?? Number.NaN) : Number.NaN
  if (!Number.isInteger(bytes) || bytes <= 0)
    throw new SubpageError('BAD_ARGUMENT', `"${text}" is not a size: write for example 512M or 2G`)
  return bytes
}

const msOf: Record<string, number> = { ms: 1, s: 1000, min: 60_000, h: 3_600_000 }

/** Reads "25ms", "25", "1.5s" into milliseconds. @throws SubpageError BAD_ARGUMENT */
export function parseMs(text: string): number {
  return parseTime(text, ['ms', 's'], '25ms or 1s')
}

/** Reads longer times too: "10s", "5min", "1h". @throws SubpageError BAD_ARGUMENT */
export function parseSpan(text: string): number {
  return parseTime(text, Object.keys(msOf), '10s, 5min or 1h')
}

function parseTime(text: string, known: string[], example: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/.exec(text.trim())
  const unit = match?.[2] || 'ms'
  const ms = match && known.includes(unit) ? Number(match[1]) * (msOf[unit] ?? Number.NaN) : Number.NaN
  if (!(ms > 0))
    throw new SubpageError('BAD_ARGUMENT', `"${text}" is not a time: write for example ${example}`)
  return ms
}

/** Reads "1%" or "0.01". @throws SubpageError BAD_ARGUMENT */
export function parseShare(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(%)?$/.exec(text.trim())
  const share = match ? Number(match[1]) / (match[2] ? 100 : 1) : Number.NaN
  if (!(share > 0 && share <= 1))
    throw new SubpageError('BAD_ARGUMENT', `"${text}" is not a share: write for example 1% or 0.01`)
  return share
}
