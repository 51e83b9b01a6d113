/** Sizes and times as people read them: KiB, MiB, GiB; µs, ms, s. */

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
