/** The memory of a guest as a heat map: where it is, and how hot. It is asked for while it can be seen, and no longer. */
import { useEffect, useRef, useState } from 'preact/hooks'
import type { MemoryMap } from '../../src/agent/memory-status.ts'
import { drawMap, drawSwatch, type MemoryKind, partAt, rowsOf } from './memory-drawing.ts'
import type { Session } from './session.ts'
import { useAsked } from './use-asked.ts'
import { bytes, number, time } from './words.ts'

const pageBytes = 4096

/** What each kind is called, and what it means. */
const kindWords: Record<MemoryKind, (map: MemoryMap) => [name: string, meaning: string]> = {
  modified: ({ recentMs, watched }) => [
    'dirty',
    watched ? `written within ${time(recentMs)}` : 'changed in one of the latest epochs',
  ],
  accessed: ({ recentMs }) => ['hot', `used within ${time(recentMs)}, not written`],
  idle: ({ coldMs }) => ['idle', `not used lately, for less than ${time(coldMs)}`],
  cold: ({ coldMs }) => ['cold', `not used for ${time(coldMs)}`],
  unknown: ({ dense }) => ['not watched', dense ? 'in memory' : 'in memory, or never written'],
  holes: () => ['empty', 'never written'],
  filled: () => ['one word', 'one word throughout, such as zeros'],
  shared: () => ['shared', 'identical to others, held once'],
  patched: () => ['patched', 'held as its difference to a similar page'],
  packed: () => ['compressed', 'in the store'],
  swapped: () => ['swapped', 'in the swap file'],
  whole: () => ['stored', 'in the store as it is'],
}

const totalOf = (map: MemoryMap, at: number) => map.cells.reduce((sum, cell) => sum + cell[at]!, 0)
const percent = (share: number) => (share > 0 && share < 0.001 ? '< 0.1 %' : `${number(100 * share)} %`)

interface MapProps {
  name: string
  session: Session
}

export function Memory({ name, session }: MapProps) {
  const place = useRef<HTMLElement>(null)
  const { answer: map, trouble } = useAsked<MemoryMap>(session, name, 'memory-map', 2_000, place)
  return (
    <section class="memory" ref={place} aria-label="Memory map">
      <h3>Memory map</h3>
      {map ? <MapOf map={map} /> : <p class="hint">{trouble ?? 'One moment.'}</p>}
      {map && trouble !== undefined && <p class="hint">{trouble}</p>}
    </section>
  )
}

function MapOf({ map }: { map: MemoryMap }) {
  const [picked, setPicked] = useState(0)
  const kinds = map.kinds
    .map((kind, at) => ({ kind, words: kindWords[kind](map), pages: totalOf(map, at) }))
    .filter(({ pages }) => pages > 0)
  const summary = kinds
    .map(({ words: [called], pages }) => `${percent(pages / map.pages)} ${called}`)
    .join(', ')
  const cell = Math.min(picked, map.cells.length - 1)
  return (
    <>
      <p class="hint">
        {bytes(map.pages * pageBytes)}; each cell is {bytes(map.cellPages * pageBytes)}, its bars are its
        pages.
      </p>
      <Picture map={map} picked={cell} pick={setPicked} summary={`Memory map: ${summary}`} />
      <label class="cell">
        <span>Look at a part</span>
        <input
          type="range"
          min={0}
          max={map.cells.length - 1}
          value={cell}
          aria-valuetext={cellWords(map, cell)}
          onInput={({ currentTarget }) => setPicked(Number(currentTarget.value))}
        />
        <span class="part" aria-hidden="true">
          {cellWords(map, cell)}
        </span>
      </label>
      <ul class="legend">
        {kinds.map(({ kind, words: [called, meaning], pages }) => (
          <li key={kind}>
            <Swatch kind={kind} />
            <span class="called">{called}</span>
            <span class="amount">
              {bytes(pages * pageBytes)}, {percent(pages / map.pages)}
            </span>
            <span class="meaning">{meaning}</span>
          </li>
        ))}
      </ul>
    </>
  )
}

function cellWords(map: MemoryMap, cell: number): string {
  const first = cell * map.cellPages * pageBytes
  const counts = map.kinds
    .map((kind, at) => ({ called: kindWords[kind](map)[0], pages: map.cells[cell]![at]! }))
    .filter(({ pages }) => pages > 0)
    .sort((a, b) => b.pages - a.pages)
    .map(({ called, pages }) => `${number(pages)} ${called}`)
  return `from ${bytes(first)}: ${counts.join(', ')}`
}

interface PictureProps {
  map: MemoryMap
  picked: number
  pick: (cell: number) => void
  summary: string
}

function Picture({ map, picked, pick, summary }: PictureProps) {
  const canvas = useRef<HTMLCanvasElement>(null)
  const [width, setWidth] = useState(0)
  const [colours, recoloured] = useState(0)
  useEffect(() => {
    const target = canvas.current!
    const resized = new ResizeObserver(() => setWidth(target.clientWidth))
    resized.observe(target)
    const dark = matchMedia('(prefers-color-scheme: dark)')
    const changed = () => recoloured((count) => count + 1)
    dark.addEventListener('change', changed)
    return () => {
      resized.disconnect()
      dark.removeEventListener('change', changed)
    }
  }, [])
  useEffect(() => {
    if (width > 0) drawMap(canvas.current!, map, width, picked)
  }, [map, width, picked, colours])
  return (
    <canvas
      ref={canvas}
      class="map"
      style={{ height: `${rowsOf(map, width).height}px` }}
      role="img"
      aria-label={summary}
      onClick={({ offsetX, offsetY }) => pick(partAt(map, width, offsetX, offsetY))}
    />
  )
}

function Swatch({ kind }: { kind: MemoryKind }) {
  const canvas = useRef<HTMLCanvasElement>(null)
  useEffect(() => {
    const draw = () => drawSwatch(canvas.current!, kind)
    draw()
    const dark = matchMedia('(prefers-color-scheme: dark)')
    dark.addEventListener('change', draw)
    return () => dark.removeEventListener('change', draw)
  }, [kind])
  return (
    <span class="swatch" aria-hidden="true">
      <canvas ref={canvas} />
    </span>
  )
}
