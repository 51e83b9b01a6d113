/** Sizes and times as people read and write them: KiB, MiB, GiB; µs, ms, s. */
import { SubpageError } from '../errors.ts'

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

export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`
  const steps = ['KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes / 1024
  let step = 0
  while (Math.round(value) >= 1024 && step < steps.length - 1) {
    value /= 1024
    step++
  }
  return `${short(value)} ${steps[step]}`
}

export function formatUs(us: number): string {
  if (Math.round(us) < 1000) return `${us.toFixed(0)} µs`
  if (Math.round(us / 1000) < 1000) return `${short(us / 1000)} ms`
  return `${(us / 1_000_000).toFixed(1)} s`
}

/** Two digits or more. */
const short = (value: number) => value.toFixed(value < 9.95 ? 1 : 0)
