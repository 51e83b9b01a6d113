/** What the techniques save on the memory of a group of guests, at one moment. */
import { formatShape, type SketchShape } from 'subpage/density/shape'
import { type BlockCounts, type Survey, survey } from 'subpage/density/survey'
import { ramImage } from 'subpage/density/survey-images'
import { pageBytes } from 'subpage/memory/page'
import { type Fleet, type Member, pause } from './fleet.ts'

export interface Savings {
  group: string
  guests: string[]
  pages: number
  zeroPages: number
  /** Shares of resident memory, zero pages among it as in the paper, each technique with those before it. */
  sharing: number
  patching: number
  packing: number
  /** The last one without the zero pages: what is saved of memory that holds something. */
  packingWithoutZero: number
  meanPatchBytes: number
  /** What is left of all of them together. */
  leftBytes: number
  /** Blocks below the page, and what sharing them would save besides. */
  blocks: BlockCounts[]
  /** Nanoseconds a page. */
  costNs: { share: number; patch: number; compress: number }
}

/** What is saved at one moment, in seconds since the first. */
export interface Moment {
  atS: number
  savings: Savings
}

export interface SweepPoint {
  shape: string
  patchedPages: number
  meanPatchBytes: number
  saved: number
  patchNs: number
}

const imagesOf = (members: readonly Member[]) =>
  members.map(({ role, guest }) => ramImage(guest.qemu.ramPath, role.name))

export async function measureSavings(group: string, members: readonly Member[]): Promise<Savings> {
  const found = await survey(imagesOf(members))
  const { bytes, seconds } = found
  const share = (left: number) => 1 - left / bytes.total
  const unique = found.pages - found.zero - found.filled - found.shared
  return {
    group,
    guests: members.map(({ role }) => role.name),
    pages: found.pages,
    zeroPages: found.zero,
    sharing: share(bytes.shared),
    patching: share(bytes.patched),
    packing: share(bytes.packed),
    packingWithoutZero: 1 - bytes.packed / (bytes.total - found.zero * pageBytes),
    meanPatchBytes: found.patched === 0 ? 0 : found.patchBytes / found.patched,
    leftBytes: bytes.packed,
    blocks: found.blocks,
    costNs: {
      share: (1e9 * seconds.share) / found.pages,
      patch: (1e9 * seconds.patch) / Math.max(1, unique),
      compress: (1e9 * seconds.pack) / Math.max(1, unique - found.patched),
    },
  }
}

/** They work between the moments. @throws the signal's reason */
export async function savingsOverTime(
  fleet: Fleet,
  { count, everyMs }: { count: number; everyMs: number },
  signal: AbortSignal,
): Promise<Moment[]> {
  const moments: Moment[] = []
  const startedAt = performance.now()
  for (let moment = 0; moment < count; moment++) {
    if (moment > 0) await pause(everyMs, signal)
    const atS = (performance.now() - startedAt) / 1000
    moments.push({ atS, savings: await fleet.stopped(() => measureSavings('mixed', fleet.members)) })
  }
  return moments
}

export async function sweepShapes(
  members: readonly Member[],
  shapes: readonly SketchShape[],
): Promise<SweepPoint[]> {
  const points: SweepPoint[] = []
  for (const shape of shapes)
    points.push(pointOf(shape, await survey(imagesOf(members), { shape, depth: 'patch' })))
  return points
}

function pointOf(shape: SketchShape, { pages, patched, patchBytes, bytes, seconds }: Survey): SweepPoint {
  return {
    shape: formatShape(shape),
    patchedPages: patched,
    meanPatchBytes: patched === 0 ? 0 : patchBytes / patched,
    saved: 1 - bytes.patched / bytes.total,
    patchNs: (1e9 * seconds.patch) / pages,
  }
}
