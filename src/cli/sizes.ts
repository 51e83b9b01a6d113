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

/** Reads "25ms", "25", "1.5s" into milliseconds. @throws SubpageError BAD_ARGUMENT */
export function parseMs(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s)?$/.exec(text.trim())
  const ms = match ? Number(match[1]) * (match[2] === 's' ? 1000 : 1) : Number.NaN
  if (!(ms > 0))
    throw new SubpageError('BAD_ARGUMENT', `"${text}" is not a time: write for example 25ms or 1s`)
  return ms
}
