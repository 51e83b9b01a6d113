/** From values to places on an axis: scales, ticks at round values, and how values are written in each unit. */
import { formatBytes } from '../units.ts'
import type { Axis, Unit } from './chart.ts'

export interface Scale {
  from: number
  to: number
  /** From 0 to 1 along the axis. */
  place(value: number): number
  ticks: readonly { value: number; label: string }[]
}

/**
 * @param values what the axis has to show; not finite ones are left out
 * @param zero whether a linear axis begins at 0 when it is not said where
 */
export function scaleOf(axis: Axis, values: Iterable<number>, ticksWanted: number, zero = true): Scale {
  const log = axis.scale === 'log'
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  for (const value of values) {
    if (!Number.isFinite(value) || (log && value <= 0)) continue
    if (value < low) low = value
    if (value > high) high = value
  }
  if (low > high) [low, high] = log ? [1, 10] : [0, 1]
  return log ? logScale(axis, low, high, ticksWanted) : linearScale(axis, low, high, ticksWanted, zero)
}

function linearScale(axis: Axis, low: number, high: number, ticksWanted: number, zero: boolean): Scale {
  const from = axis.from ?? (zero ? Math.min(0, low) : low)
  let to = axis.to ?? high
  if (to <= from) to = from + (Math.abs(from) || 1)
  const step = roundStep((to - from) / ticksWanted, axis.unit)
  // The data's own end becomes a round one, so that the topmost value has a tick above it.
  if (axis.to === undefined && zero) to = Math.ceil(to / step - 1e-9) * step
  const values: number[] = []
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to * (1 + 1e-9); i++) values.push(i * step)
  const largest = Math.max(Math.abs(from), Math.abs(to))
  return {
    from,
    to,
    place: (value) => (value - from) / (to - from),
    ticks: values.map((value) => ({ value, label: formatTick(value, step, largest, axis.unit) })),
  }
}

function logScale(axis: Axis, low: number, high: number, ticksWanted: number): Scale {
  const base = axis.unit === 'bytes' ? 2 : 10
  const log = (value: number) => Math.log(value) / Math.log(base)
  const from = axis.from ?? base ** Math.floor(log(low) + 1e-9)
  let to = axis.to ?? base ** Math.ceil(log(high) - 1e-9)
  if (to <= from) to = from * base
  const decades = log(to) - log(from)
  const every = Math.max(1, Math.ceil(decades / ticksWanted))
  // Few decades leave room for values between them.
  const between = base === 10 && decades <= 2.5 ? [1, 2, 5] : [1]
  const values: number[] = []
  for (let exponent = Math.floor(log(from)); exponent <= log(to) + 1e-9; exponent += every)
    for (const factor of between) {
      const value = factor * base ** exponent
      if (value >= from * (1 - 1e-9) && value <= to * (1 + 1e-9)) values.push(value)
    }
  return {
    from,
    to,
    place: (value) => (value <= from ? 0 : (log(value) - log(from)) / decades),
    ticks: values.map((value) => ({ value, label: formatValue(value, axis.unit) })),
  }
}

/** 1, 2 or 5 times a power of ten; for bytes a power of two. */
function roundStep(rough: number, unit: Unit): number {
  if (unit === 'bytes') return 2 ** Math.ceil(Math.log2(Math.max(rough, 1)))
  const power = 10 ** Math.floor(Math.log10(rough))
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= rough * (1 - 1e-9)) ?? 10
  const step = factor * power
  return unit === 'count' ? Math.max(1, step) : step
}

const timeUnits = [
  { from: 1, factor: 1, name: 's' },
  { from: 1e-3, factor: 1e3, name: 'ms' },
  { from: 0, factor: 1e6, name: 'µs' },
] as const

const timeUnit = (seconds: number) => timeUnits.find(({ from }) => Math.abs(seconds) >= from * 0.9995)!

/** Ticks of one axis share a unit of time and a number of decimals. */
function formatTick(value: number, step: number, largest: number, unit: Unit): string {
  const decimals = (size: number) => Math.max(0, -Math.floor(Math.log10(size) + 1e-9))
  if (unit === 'seconds') {
    const { factor, name } = timeUnit(largest)
    return `${(value * factor).toFixed(decimals(step * factor))} ${name}`
  }
  if (unit === 'share') return `${(value * 100).toFixed(decimals(step * 100))} %`
  if (unit === 'bytes') return value === 0 ? '0' : exactBytes(value)
  if (unit === 'ratio') return `${value.toFixed(decimals(step))}×`
  return formatCount(value)
}

const exactBytes = (bytes: number) => formatBytes(bytes).replace(/\.0 /, ' ')

/** A value on its own, with its unit. */
export function formatValue(value: number, unit: Unit): string {
  if (Number.isNaN(value)) return '–'
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞'
  switch (unit) {
    case 'bytes':
      return exactBytes(Math.round(value))
    case 'seconds': {
      if (value === 0) return '0 s'
      const { factor, name } = timeUnit(value)
      return `${significant(value * factor)} ${name}`
    }
    case 'share':
      return `${significant(value * 100)} %`
    case 'ratio':
      return `${significant(value)}×`
    case 'count':
      return formatCount(value)
  }
}

function formatCount(value: number): string {
  const steps: [number, string][] = [
    [1e9, ' G'],
    [1e6, ' M'],
    [1e4, ' k'],
  ]
  const step = steps.find(([size]) => Math.abs(value) >= size)
  if (!step) return significant(value)
  const factor = step[1] === ' k' ? 1e3 : step[0]
  return `${significant(value / factor)}${step[1]}`
}

/** Three digits, no zeros at the end; whole numbers stay whole. */
function significant(value: number): string {
  const size = Math.abs(value)
  if (size >= 100 || Number.isInteger(value)) return value.toFixed(0)
  return String(Number(value.toPrecision(size >= 10 ? 3 : 2)))
}
