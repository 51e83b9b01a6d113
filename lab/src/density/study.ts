/**
 * `subpage study density`: what sharing, patching and compression save on real guests, one technique after the other as in
 * Table 1 of the Difference Engine (OSDI 2008), which detector of similar pages does best, and what holding the memory of
 * running guests densely costs them.
 */
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { commandFor, isBuilt, needBuilt } from 'subpage/built'
import { SubpageError } from 'subpage/errors'
import { type Study, type StudyOptions, type StudyResult, untilInterrupted } from '../study.ts'
import { type Accesses, copyMemories, measureAccesses } from './accesses.ts'
import { Fleet, type Role, roles } from './fleet.ts'
import { type Live, measureLive } from './live.ts'
import { report, text } from './result.ts'
import {
  type Moment,
  measureSavings,
  type Savings,
  type SweepPoint,
  savingsOverTime,
  sweepShapes,
} from './savings.ts'

const shape = (groups: number, lines: number, candidates: number) => ({ groups, lines, candidates })

const sets = {
  quick: {
    guests: [roles.random, roles.shell, roles.idle, roles.sum, roles.sqlite, roles.otherShell],
    shapes: [shape(1, 1, 1), shape(2, 1, 1), shape(4, 1, 1), shape(2, 2, 1)],
    pairs: 6,
    moments: { count: 0, everyMs: 0 },
  },
  full: {
    guests: [
      ...[roles.random, roles.shell, roles.idle, roles.sum],
      ...[roles.sqlite, roles.redis, roles.otherShell],
    ],
    shapes: [1, 2, 4, 8].flatMap((k) => [1, 2].flatMap((s) => [1, 2, 4].map((c) => shape(k, s, c)))),
    pairs: 80,
    moments: { count: 5, everyMs: 5_000 },
  },
}

const groupsOf = (count: number, all: readonly Role[]) =>
  Array.from({ length: Math.ceil(all.length / count) }, (_, n) => all.slice(n * count, (n + 1) * count))

const parts = ['savings', 'sweep', 'accesses', 'live']

export interface Headline {
  guests: number
  savedHomogeneous: number
  savedMixed: number
  savedSharingOnly: number
  savedSharingAndPatching: number
  /** Null when it was not measured; so is the next. */
  slowdown: number | null
  /** Of patches and packed pages, without the page fault around it. */
  rebuildUsP50: number | null
}

export interface DensityFindings {
  accel: string
  savings: Savings[]
  /** Of all guests, while they work. */
  moments: Moment[]
  sweep: SweepPoint[]
  accesses: Accesses | undefined
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
    const { guests, shapes, pairs, moments } = sets[set]
    needBuilt('guest', 'workloads')
    // Another kernel is built only when asked for.
    const hasOther = isBuilt('other guest')
    const fleet = new Fleet()
    const findings: DensityFindings = {
      ...{ accel: '', savings: [], moments: [], sweep: [], accesses: undefined, live: undefined },
      standbysPerGib: 0,
      notRun: hasOther ? [] : [`another kernel and other libraries: ${commandFor('other guest')} makes them`],
    }
    try {
      await untilInterrupted(signal, async () => {
        const chosen = guests.filter((role) => hasOther || role !== roles.otherShell)
        // Each boots on a processor of its own.
        for (const some of groupsOf(availableParallelism(), chosen)) {
          signal.throwIfAborted()
          note(`starting guests: ${some.map(({ name }) => name).join(', ')}`)
          await fleet.start(some)
        }
        findings.accel = fleet.accel
        note('savings')
        findings.moments = await savingsOverTime(fleet, moments, signal)
        const homogeneous = fleet.members.filter(({ role }) => ['shell', 'idle', 'sum'].includes(role.name))
        const alike = fleet.members.filter(({ role }) => role.kernel === undefined)
        findings.savings = await fleet.stopped(async () => {
          if (wants('accesses')) copyMemories(fleet.members, fleet.memoriesDirectory)
          return [
            await measureSavings('homogeneous', homogeneous),
            ...(alike.length < fleet.members.length ? [await measureSavings('one kernel', alike)] : []),
            await measureSavings('mixed', fleet.members),
          ]
        })
        findings.standbysPerGib = Math.floor((2 ** 30 * homogeneous.length) / findings.savings[0]!.leftBytes)
        if (wants('sweep')) {
          note('detectors of similar pages')
          findings.sweep = await fleet.stopped(() => sweepShapes(fleet.members, shapes))
        }
        if (wants('accesses')) {
          note('accesses to stored pages')
          const swap = join(fleet.directory, 'swap')
          findings.accesses = await fleet.stopped(() =>
            measureAccesses(fleet.members, fleet.memoriesDirectory, swap),
          )
        }
        if (wants('live')) {
          note('running guests')
          const chosen = [fleet.member('random'), fleet.member('sqlite')]
          findings.live = await measureLive(fleet, chosen, pairs, note, signal)
        }
      })
      if (findings.savings.length === 0) throw signal.reason
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

function headline({ savings, live, accesses }: DensityFindings): Headline {
  const [homogeneous, mixed] = [savings[0]!, savings.at(-1)!]
  return {
    guests: mixed.guests.length,
    savedHomogeneous: homogeneous.packing,
    savedMixed: mixed.packing,
    savedSharingOnly: mixed.sharing,
    savedSharingAndPatching: mixed.patching,
    slowdown: live?.slowdown ?? null,
    rebuildUsP50: accesses?.rebuildUsP50 ?? null,
  }
}
