/** HashSimilarityDetector(k, s), c of the Difference Engine: how pages that resemble each other are found. */
import { SubpageError } from '../errors.ts'

export interface SketchShape {
  /** k: hashes under which a page is indexed. */
  groups: number
  /** s: lines of the page that go into one hash. */
  lines: number
  /** c: pages kept under one hash. */
  candidates: number
}

/** The paper's best, with (4,1),1. */
export const defaultShape: SketchShape = { groups: 2, lines: 1, candidates: 1 }

/** As native/core/similar.h has them. */
const groupsMax = 8
const linesMax = 16
const candidatesMax = 8

/** Reads "(2,1),1", "2,1,1" or "2 1 1". @throws SubpageError BAD_ARGUMENT */
export function parseShape(text: string): SketchShape {
  const numbers = text
    .replace(/[()]/g, ' ')
    .split(/[\s,]+/)
    .filter(Boolean)
    .map(Number)
  const [groups, lines, candidates] = numbers
  if (
    numbers.length !== 3 ||
    !numbers.every((n) => Number.isInteger(n) && n >= 1) ||
    groups! > groupsMax ||
    groups! * lines! > linesMax ||
    candidates! > candidatesMax
  )
    throw new SubpageError(
      'BAD_ARGUMENT',
      `"${text}" is not a detector: write (k,s),c with k to ${groupsMax}, k × s to ${linesMax}, c to ${candidatesMax}, for example (2,1),1`,
    )
  return { groups: groups!, lines: lines!, candidates: candidates! }
}

export const formatShape = ({ groups, lines, candidates }: SketchShape) =>
  `(${groups},${lines}),${candidates}`

/** For native code. */
export const shapeFields = ({ groups, lines, candidates }: SketchShape) =>
  Uint32Array.of(groups, lines, candidates)
