/** What is said of a guest's memory to whoever asks for it: where it is and how hot, and how much of it the guest uses. */
import { type Static, Type } from '#typebox'
import { memoryKinds } from '../density/memory-map.ts'
import { Sample } from '../workingset/sample.ts'
import { Nullable } from './status-figures.ts'

export const MemoryMap = Type.Object({
  pages: Type.Integer({ description: "of its RAM and its devices' memory" }),
  cellPages: Type.Integer({
    description: 'pages in a row that one cell stands for; the last cell may have fewer',
  }),
  kinds: Type.Array(Type.Enum([...memoryKinds]), {
    description: 'what the counts of a cell are of, in their order',
  }),
  cells: Type.Array(
    Type.Array(Type.Integer({ minimum: 0 }), { minItems: memoryKinds.length, maxItems: memoryKinds.length }),
    { description: 'for each cell, in order of addresses, how many of its pages are of each kind' },
  ),
  dense: Type.Boolean({ description: 'what is in the store is known, and what was never written' }),
  watched: Type.Boolean({ description: 'somebody watches which pages it uses; else most are unknown' }),
  recentMs: Type.Number({ description: 'what counts as modified or accessed was within this time' }),
  coldMs: Type.Number({ description: 'a page is cold when it was not used for this time' }),
})
export type MemoryMap = Static<typeof MemoryMap>

/** What a point of a working set's history has, in this order. */
export const workingSetColumns = ['atMs', 'pages', 'plusMinus', 'writtenPages'] as const

const Point = Type.Array(Nullable(Type.Number()), {
  minItems: workingSetColumns.length,
  maxItems: workingSetColumns.length,
})

export const WorkingSets = Type.Object({
  watched: Type.Boolean({ description: 'its memory is watched now' }),
  /** Of the latest interval, while it is watched. */
  latest: Nullable(Sample),
  columns: Type.Array(Type.Enum([...workingSetColumns])),
  points: Type.Array(Point, {
    description: 'of the last hour in which it was watched, the oldest first, at most one each five seconds',
  }),
})
export type WorkingSets = Static<typeof WorkingSets>
