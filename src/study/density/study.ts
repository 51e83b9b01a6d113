/**
 * `subpage study density`: what sharing, patching and compression save on real guests, one technique after the other as in
 * Table 1 of the Difference Engine (OSDI 2008), which detector of similar pages does best, and what holding the memory of
 * running guests densely costs them.
 */
import { SubpageError } from '../../errors.ts'
import type { Study, StudyOptions, StudyResult } from '../study.ts'
import { Fleet, type Role, roles } from './fleet.ts'
import { type Live, measureLive } from './live.ts'
import { rebuildUsP50, report, text } from './result.ts'
import { measureSavings, type Savings, type SweepPoint, sweepShapes } from './savings.ts'

const shape = (groups: number, lines: number, candidates: number) => ({ groups, lines, candidates })

const sets = {
  quick: {
    guests: [roles.random, roles.shell, roles.idle, roles.sum, roles.sqlite],
    shapes: [shape(1, 1, 1), shape(2, 1, 1), shape(4, 1, 1), shape(2, 2, 1)],
    live: { pairs: 2, windowMs: 4_000 },
  },
  full: {
    guests: [roles.random, roles.shell, roles.idle, roles.sum, roles.sqlite, roles.redis],
    shapes: [1, 2, 4, 8].flatMap((k) => [1, 2].flatMap((s) => [1, 2, 4].map((c) => shape(k, s, c)))),
    live: { pairs: 8, windowMs: 15_000 },
  },
}

const parts = ['savings', 'sweep', 'live']

export interface Headline {
  guests: number
  savedHomogeneous: number
  savedMixed: number
  savedSharingOnly: number
  savedSharingAndPatching: number
  /** Null when it was not measured. */
  slowdown: number | null
  rebuildUsP50: number | null
}

export interface DensityFindings {
  accel: string
  savings: Savings[]
  sweep: SweepPoint[]
  live: Live | undefined
  /** Standbys of the homogeneous guests' kind that fit in 1 GiB. */
  standbysPerGib: number
  notRun: string[]
}

export const study: Study = {
  async run({ set, only, note, signal }: StudyOptions): Promise<StudyResult> {
    const wrong = only?.find((part) => !parts.includes(part))
    if (wrong !== undefined)
      throw new SubpageError('BAD_ARGUMENT', `no part is named ${wrong}: choose ${parts.join(', ')}`)
    const wants = (part: string) => only === undefined || only.includes(part)
    const { guests, shapes, live } = sets[set]
    const fleet = new Fleet()
    try {
      for (const role of guests satisfies Role[]) {
        signal.throwIfAborted()
        note(`starting a guest: ${role.name}`)
        await fleet.start(role)
      }
      const homogeneous = fleet.members.filter(({ role }) => ['shell', 'idle', 'sum'].includes(role.name))
      note('savings')
      const savings = await fleet.stopped(async () => [
        await measureSavings('homogeneous', homogeneous),
        await measureSavings('mixed', fleet.members),
      ])
      if (wants('sweep')) note('detectors of similar pages')
      const sweep = wants('sweep') ? await fleet.stopped(() => sweepShapes(fleet.members, shapes)) : []
      if (wants('live')) note('running guests')
      const measured = wants('live')
        ? await measureLive(fleet, [fleet.member('random'), fleet.member('shell')], live, signal)
        : undefined
      const findings: DensityFindings = {
        accel: fleet.accel,
        savings,
        sweep,
        live: measured,
        standbysPerGib: Math.floor((2 ** 30 * homogeneous.length) / savings[0]!.leftBytes),
        notRun: ['different kernels and distributions: one kernel is built here'],
      }
      return {
        json: { set, ...findings, headline: headline(findings) },
        text: (terminal) => text(findings, terminal),
        report: report(findings),
      }
    } finally {
      await fleet.end()
    }
  },
}

function headline({ savings, live }: DensityFindings): Headline {
  const [homogeneous, mixed] = savings as [Savings, Savings]
  return {
    guests: mixed.guests.length,
    savedHomogeneous: homogeneous.packing,
    savedMixed: mixed.packing,
    savedSharingOnly: mixed.sharing,
    savedSharingAndPatching: mixed.patching,
    slowdown: live?.slowdown ?? null,
    rebuildUsP50: rebuildUsP50(live),
  }
}
