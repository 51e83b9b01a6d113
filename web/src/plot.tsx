/** A plot of some columns of a guest's points over time, with the events of the guest as marks; uPlot draws it. */
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import type { HostEvent } from '../../src/agent/event-log.ts'
import { pointColumns } from '../../src/agent/guest-history.ts'
import type { Point } from '../../src/agent/point-ring.ts'

export interface Series {
  column: string
  label: string
  color: string
}

interface PlotProps {
  title: string
  /** What the points have, in their order. */
  columns?: readonly string[]
  points: Point[]
  series: Series[]
  format: (value: number) => string
  spanMs: number
  events: HostEvent[]
}

const height = 132
/** All plots of the page show the same moment. */
const sync = uPlot.sync('subpage')

const clock = (seconds: number) => new Date(seconds * 1000).toLocaleTimeString('en-GB')
const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

export function Plot({ title, columns = pointColumns, points, series, format, spanMs, events }: PlotProps) {
  const place = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot>()
  const marks = useRef<HostEvent[]>(events)
  marks.current = events
  const show = useRef<() => void>(() => undefined)
  const at = series.map(({ column }) => columns.indexOf(column))
  const last = points.at(-1)
  useEffect(() => {
    const target = place.current!
    const dark = matchMedia('(prefers-color-scheme: dark)')
    const make = () => {
      plot.current?.destroy()
      const axis = {
        stroke: css('--dim'),
        grid: { stroke: css('--line'), width: 1 },
        ticks: { show: false },
        font: '11px system-ui, sans-serif',
      }
      plot.current = new uPlot(
        {
          width: target.clientWidth || 320,
          height,
          legend: { show: false },
          padding: [8, 26, 0, 0],
          cursor: { sync: { key: sync.key }, points: { size: 5 }, drag: { x: false, y: false } },
          scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
          axes: [
            { ...axis, size: 26, space: 76, values: (_, ticks) => ticks.map(clock) },
            { ...axis, size: 66, space: 34, values: (_, ticks) => ticks.map((tick) => format(tick)) },
          ],
          series: [
            {},
            ...series.map(({ color, label }, index) => ({
              label,
              stroke: css(color),
              width: 1.5,
              points: { show: false },
              ...(index === 0 && { fill: `color-mix(in srgb, ${css(color)} 12%, transparent)` }),
            })),
          ],
          hooks: { draw: [(u) => drawMarks(u, marks.current)] },
        },
        [[], ...series.map(() => [])] as uPlot.AlignedData,
        target,
      )
    }
    make()
    const resized = new ResizeObserver(() =>
      plot.current?.setSize({ width: target.clientWidth || 320, height }),
    )
    resized.observe(target)
    // Its colours are those of the moment when it was made.
    const recolour = () => {
      make()
      show.current()
    }
    dark.addEventListener('change', recolour)
    return () => {
      resized.disconnect()
      dark.removeEventListener('change', recolour)
      plot.current?.destroy()
    }
  }, [])
  show.current = () => {
    const end = (last?.[0] ?? Date.now()) / 1000
    const shown = points.filter(([ms]) => (ms ?? 0) >= end * 1000 - spanMs)
    plot.current?.setData(
      [
        shown.map(([ms]) => (ms ?? 0) / 1000),
        ...at.map((column) => shown.map((point) => point[column] ?? null)),
      ] as uPlot.AlignedData,
      true,
    )
    plot.current?.setScale('x', { min: end - spanMs / 1000, max: end })
  }
  useEffect(() => show.current(), [last, spanMs, points.length])
  const values = series.map(({ label, color }, index) => {
    const value = last?.[at[index]!]
    return { label, color, text: value === null || value === undefined ? '–' : format(value) }
  })
  return (
    <figure class="plot">
      <figcaption>
        <h3>{title}</h3>
        <dl>
          {values.map(({ label, color, text }) => (
            <div key={label}>
              <dt class={`key key${color}`}>{label}</dt>
              <dd>{text}</dd>
            </div>
          ))}
        </dl>
      </figcaption>
      <div ref={place} class="canvas" aria-hidden="true" />
    </figure>
  )
}

function drawMarks(u: uPlot, events: HostEvent[]): void {
  const { ctx } = u
  const { left, top, height: tall, width } = u.bbox
  ctx.save()
  ctx.lineWidth = devicePixelRatio
  for (const { time, kind } of events) {
    const x = u.valToPos(Date.parse(time) / 1000, 'x', true)
    if (!(x >= left && x <= left + width)) continue
    ctx.strokeStyle = css(kind === 'failover' ? '--bad' : '--mark')
    ctx.beginPath()
    ctx.moveTo(x, top)
    ctx.lineTo(x, top + tall)
    ctx.stroke()
  }
  ctx.restore()
}
