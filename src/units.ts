/** Sizes and times as people read them: KiB, MiB, GiB; µs, ms, s. */

export function formatBytes(bytes: number): string {
  if (Math.round(bytes) < 1024) return `${Math.round(bytes)} B`
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

/** Whole units: 250 ms, 10 s, 5 min, 2 h. */
export function formatTime(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`
  return ms < 7_200_000 ? `${Math.round(ms / 60_000)} min` : `${(ms / 3_600_000).toFixed(1)} h`
}

/** Two digits or more. */
const short = (value: number) => value.toFixed(value < 9.95 ? 1 : 0)

/** As in "1 epoch", "2 epochs". */
export const counted = (count: number, noun: string) => `${count} ${noun}${count === 1 ? '' : 's'}`
