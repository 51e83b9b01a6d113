/** Draws the map of a guest's memory: each cell is a stacked bar of its pages by kind, each kind a colour and a pattern. */
import type { MemoryMap } from '../../src/agent/memory-status.ts'

export type MemoryKind = MemoryMap['kinds'][number]

const cellWidthMin = 9
const cellHeight = 12
const gap = 1
const tile = 6
/** Of a kind of which there is a page in the cell. */
const barMin = 1.5

/** Marks on a tile of six by six: rectangles of x, y, width, height. Each kind has its own. */
const marks: Record<MemoryKind, number[][]> = {
  modified: [],
  accessed: [[2, 2, 2, 2]],
  idle: [
    [0, 0, 1.5, 1.5],
    [3, 3, 1.5, 1.5],
  ],
  cold: [[0, 5, 6, 1]],
  unknown: [],
  holes: [],
  filled: [[2, 2, 1.5, 1.5]],
  shared: diagonal(1),
  patched: diagonal(-1),
  packed: [
    [0, 1, 6, 1],
    [0, 4, 6, 1],
  ],
  swapped: [
    [1, 0, 1, 6],
    [4, 0, 1, 6],
  ],
  whole: [
    [0, 2, 6, 1],
    [2, 0, 1, 6],
  ],
}

function diagonal(slope: number): number[][] {
  return Array.from({ length: tile }, (_, x) => [x, slope > 0 ? tile - 1 - x : x, 1.6, 1.6])
}

const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

/** How the cells lie in a picture that is so wide. */
export function rowsOf({ cells }: MemoryMap, width: number) {
  const most = Math.max(1, Math.floor(width / cellWidthMin))
  // Powers of two, so that a row is a round number of bytes.
  const columns = 2 ** Math.floor(Math.log2(Math.min(most, Math.max(1, cells.length))))
  const rows = Math.ceil(cells.length / columns)
  return { columns, rows, height: rows * cellHeight }
}

/** Which cell is there. */
export function partAt(map: MemoryMap, width: number, x: number, y: number): number {
  const { columns } = rowsOf(map, width)
  const cell = Math.floor(y / cellHeight) * columns + Math.floor((x * columns) / width)
  return Math.max(0, Math.min(map.cells.length - 1, cell))
}

export function drawMap(canvas: HTMLCanvasElement, map: MemoryMap, width: number, picked: number): void {
  const { columns, height } = rowsOf(map, width)
  const ctx = prepare(canvas, width, height)
  const fills = map.kinds.map((kind) => patternOf(ctx, kind))
  const cellWidth = width / columns
  for (const [index, cell] of map.cells.entries()) {
    const x = (index % columns) * cellWidth
    const y = Math.floor(index / columns) * cellHeight
    drawCell(ctx, cell, fills, { x, y, width: cellWidth - gap, height: cellHeight - gap })
  }
  ctx.strokeStyle = css('--text')
  ctx.lineWidth = 2
  const x = (picked % columns) * cellWidth
  const y = Math.floor(picked / columns) * cellHeight
  ctx.strokeRect(x + 0.5, y + 0.5, cellWidth - gap - 1, cellHeight - gap - 1)
}

export function drawSwatch(canvas: HTMLCanvasElement, kind: MemoryKind): void {
  const [width, height] = [18, 12]
  const ctx = prepare(canvas, width, height)
  ctx.fillStyle = patternOf(ctx, kind)
  ctx.fillRect(0, 0, width, height)
  if (kind !== 'holes') return
  ctx.strokeStyle = css('--mark')
  ctx.strokeRect(0.5, 0.5, width - 1, height - 1)
}

interface Box {
  x: number
  y: number
  width: number
  height: number
}

type Fill = string | CanvasPattern

function drawCell(ctx: CanvasRenderingContext2D, cell: number[], fills: Fill[], box: Box): void {
  const pages = cell.reduce((sum, count) => sum + count, 0)
  const kinds = cell.flatMap((count, at) => (count > 0 ? [{ at, width: (count / pages) * box.width }] : []))
  // What is there can be seen, at the cost of the widest.
  const wide = kinds.map(({ width }) => Math.max(width, barMin))
  const over = wide.reduce((sum, width) => sum + width, 0) - box.width
  const widest = wide.indexOf(Math.max(...wide))
  let x = box.x
  for (const [index, { at }] of kinds.entries()) {
    const width = wide[index]! - (index === widest ? over : 0)
    ctx.fillStyle = fills[at]!
    ctx.fillRect(x, box.y, width, box.height)
    x += width
  }
}

function prepare(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  const ratio = devicePixelRatio
  canvas.width = Math.round(width * ratio)
  canvas.height = Math.round(height * ratio)
  const ctx = canvas.getContext('2d')!
  ctx.scale(ratio, ratio)
  ctx.clearRect(0, 0, width, height)
  return ctx
}

/** A mark on this colour can be seen. @param colour as #rrggbb */
function inkOn(colour: string): string {
  const [red, green, blue] = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16))
  const light = 0.3 * red! + 0.6 * green! + 0.1 * blue!
  return light > 120 ? 'rgb(0 0 0 / 38%)' : 'rgb(255 255 255 / 50%)'
}

function patternOf(ctx: CanvasRenderingContext2D, kind: MemoryKind): Fill {
  const ratio = devicePixelRatio
  const drawn = document.createElement('canvas')
  drawn.width = drawn.height = Math.round(tile * ratio)
  const tiled = drawn.getContext('2d')!
  tiled.scale(drawn.width / tile, drawn.height / tile)
  tiled.fillStyle = css(`--m-${kind}`)
  tiled.fillRect(0, 0, tile, tile)
  tiled.fillStyle = inkOn(css(`--m-${kind}`))
  for (const [x, y, width, height] of marks[kind]) tiled.fillRect(x!, y!, width!, height!)
  const pattern = ctx.createPattern(drawn, 'repeat')
  pattern?.setTransform(new DOMMatrix().scale(1 / ratio))
  return pattern ?? css(`--m-${kind}`)
}
