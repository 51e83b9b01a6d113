/** Sizes and times as people read and write them: KiB, MiB, GiB; µs, ms, s. */
import { SubpageError } from '../errors.ts'

export { formatBytes, formatTime, formatUs } from '../units.ts'

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

/** Reads "25ms", "25" (ms), "1.5s", "5min", "1h" into milliseconds. @throws SubpageError BAD_ARGUMENT */
export function parseMs(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/.exec(text.trim())
  const unit = match?.[2] || 'ms'
  const ms = match && Object.hasOwn(msOf, unit) ? Number(match[1]) * msOf[unit]! : Number.NaN
  if (!(ms > 0 && Number.isFinite(ms)))
    throw new SubpageError('BAD_ARGUMENT', `"${text}" is not a time: write for example 25ms, 10s, 5min or 1h`)
  return ms
}

/** Reads with `parse`, and refuses what is outside the limits. */
export function within(
  parse: (text: string) => number,
  min: number,
  max: number,
  format: (value: number) => string,
): (text: string) => number {
  return (text) => {
    const value = parse(text)
    if (value < min) throw new SubpageError('BAD_ARGUMENT', `${text} is too little: at least ${format(min)}`)
    if (value > max) throw new SubpageError('BAD_ARGUMENT', `${text} is too much: at most ${format(max)}`)
    return value
  }
}

/** Reads "1%" or "0.01"; "1" could be meant as either 1% or all of it, and is refused. @throws SubpageError BAD_ARGUMENT */
export function parseShare(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(%)?$/.exec(text.trim())
  const share = match ? Number(match[1]) / (match[2] ? 100 : 1) : Number.NaN
  if (match && !match[2] && share >= 1)
    throw new SubpageError('BAD_ARGUMENT', `"${text}" may mean ${text}% or a fraction: write 1% or 0.01`)
  if (!(share > 0 && share <= 1))
    throw new SubpageError('BAD_ARGUMENT', `"${text}" is not a share: write for example 1% or 0.01`)
  return share
}
