/**
 * `subpage study amplification`: how much more whole dirty pages are than what changed in them, by workload and by length of
 * the epoch. After "cache line deltas" (SoCC 2022): of 30 benchmarks more than 35 % have a factor above 10, and XOR with the
 * former content and run-length encoding saves a further 1.8×.
 *
 * The factor of a workload is bytes of changed pages ÷ bytes of changed lines, over all its epochs: from 1 to 64. Pages that
 * were written with what they held already (silent ones) are left out of it; with them it is the *written* factor, which
 * has no upper end.
 */
import { needBuilt } from 'subpage/built'
import { SubpageError } from 'subpage/errors'
import { pageBytes } from 'subpage/memory/page'
import { type Study, type StudyOptions, type StudyResult, untilInterrupted } from '../study.ts'
import { chosenInGuest, type MeasuredGuest, measureInGuest, nameInGuest } from './in-guest.ts'
import { type Epochs, failureOf, measure, type Plan } from './measure.ts'
import { report, text } from './result.ts'
import { RunningWorkload } from './running.ts'
import { packagesOf, type Workload, workloads } from './workload.ts'

const plans: Record<'quick' | 'full', Plan> = {
  quick: {
    round: [
      { epochMs: 1, count: 20 },
      { epochMs: 10, count: 10 },
      { epochMs: 100, count: 3 },
      { epochMs: 1000, count: 1 },
    ],
    rounds: 3,
  },
  full: {
    round: [
      { epochMs: 1, count: 50 },
      { epochMs: 10, count: 20 },
      { epochMs: 100, count: 5 },
      { epochMs: 1000, count: 1 },
    ],
    rounds: 4,
  },
}

export interface Lengths extends Epochs {
  /** Of pages in which something changed; null when nothing did. */
  amplification: number | null
  /** Of all pages that were written. */
  writtenAmplification: number | null
  /** Changed lines as they are ÷ what the codec makes of them. */
  xorRleGain: number | null
  maskedGain: number | null
  /** masked ÷ masked with known lines taken out; and with zstd behind that. */
  dictionaryGain: number | null
  dictionaryZstdGain: number | null
}

export interface Measured {
  name: string
  /** It ran in a guest, all of whose memory was looked at. */
  inGuest: boolean
  kind: string
  about: string
  /** Why there are no figures. */
  missing?: string
  /** Packages in another version than the pinned one. */
  differing: string[]
  memoryBytes: number
  /** It ended, or its part of interest did, before all epochs were over. */
  endedEarly: boolean
  lengths: Lengths[]
}

/** Of the workloads that ran as processes: those in guests are a part of them once more. */
export interface Headline {
  epochMs: number
  workloads: number
  shareAbove10: number
  /** Geometric means over the workloads. */
  xorRleGain: number
  maskedGain: number
  dictionaryGain: number
}

export const study: Study = {
  async run({ set, only, note, signal }: StudyOptions): Promise<StudyResult> {
    const chosen = choose(set, only)
    if (chosen.inGuest.length > 0) needBuilt('guest', 'workloads')
    const measured: Measured[] = []
    await untilInterrupted(signal, async () => {
      for (const workload of chosen.processes) {
        note(workload.name)
        measured.push(await measureWorkload(workload, plans[set], note, signal))
      }
      const done = (one: MeasuredGuest) => measured.push(ofGuest(one))
      if (chosen.inGuest.length > 0) await measureInGuest(chosen.inGuest, plans[set], note, signal, done)
    })
    if (measured.length === 0) signal.throwIfAborted()
    const headline = plans[set].round.map(({ epochMs }) => headlineOf(measured, epochMs))
    const result = { measured, headline }
    return { json: { set, ...result }, text: (terminal) => text(result, terminal), report: report(result) }
  },
}

function choose(set: string, only: readonly string[] | undefined) {
  const all = workloads()
  if (!only)
    return {
      processes: all.filter(({ quick }) => set === 'full' || quick),
      inGuest: set === 'full' ? chosenInGuest(undefined) : [],
    }
  const names = [...all.map(({ name }) => name), ...chosenInGuest(undefined).map(nameInGuest)]
  const unknown = only.filter((name) => !names.includes(name))
  if (unknown.length > 0 || only.length === 0)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `no workload is named ${unknown.join(', ')}: choose of ${names.join(', ')}`,
    )
  return { processes: all.filter(({ name }) => only.includes(name)), inGuest: chosenInGuest(only) }
}

function ofGuest({ workload, failed, epochs, memoryBytes }: MeasuredGuest): Measured {
  return {
    name: nameInGuest(workload),
    inGuest: true,
    kind: workload.kind,
    about: workload.about,
    ...(failed !== undefined && { missing: failed }),
    differing: [],
    memoryBytes,
    endedEarly: false,
    lengths: epochs.map(figures),
  }
}

export async function measureWorkload(
  workload: Workload,
  plan: Plan,
  note: (text: string) => void,
  signal: AbortSignal,
): Promise<Measured> {
  const { name, kind, about } = workload
  const { missing, differing } = packagesOf(workload)
  const empty = {
    name,
    inGuest: false,
    kind,
    about,
    differing,
    memoryBytes: 0,
    endedEarly: false,
    lengths: [],
  }
  if (missing.length > 0) {
    note(`  missing: ${missing.join(', ')}`)
    return { ...empty, missing: `package ${missing.join(', ')} is not installed` }
  }
  for (const other of differing) note(`  ${other}`)
  const running = new RunningWorkload(workload, signal)
  try {
    const target = await running.start()
    const { epochs, memoryBytes, ended } = await measure(target, plan, () => running.over(), signal)
    return { ...empty, memoryBytes, endedEarly: ended, lengths: epochs.map(figures) }
  } catch (error) {
    const missing = failureOf(error, signal)
    note(`  ${missing}`)
    return { ...empty, missing }
  } finally {
    await running.end()
  }
}

export function figures(epochs: Epochs): Lengths {
  const { dirtyPages, changedPages, changedLines, codecBytes, reduced } = epochs
  const over = (a: number, b: number) => (b > 0 ? a / b : null)
  return {
    ...epochs,
    amplification: over(changedPages * pageBytes, changedLines * 64),
    writtenAmplification: over(dirtyPages * pageBytes, changedLines * 64),
    xorRleGain: changedLines > 0 ? over(codecBytes.line, codecBytes['xor-rle']) : null,
    maskedGain: changedLines > 0 ? over(codecBytes.line, codecBytes.masked) : null,
    dictionaryGain: changedLines > 0 ? over(reduced.masked, reduced.dictionary) : null,
    dictionaryZstdGain: changedLines > 0 ? over(reduced.masked, reduced.dictionaryZstd) : null,
  }
}

export function headlineOf(measured: readonly Measured[], epochMs: number): Headline {
  const of = measured.flatMap(({ inGuest, lengths }) =>
    (inGuest ? [] : lengths).filter((length) => length.epochMs === epochMs && length.amplification !== null),
  )
  const mean = (key: 'xorRleGain' | 'maskedGain' | 'dictionaryGain') => {
    const logs = of.flatMap((length) => (length[key] === null ? [] : [Math.log(length[key])]))
    return Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length)
  }
  return {
    epochMs,
    workloads: of.length,
    shareAbove10: of.filter(({ amplification }) => amplification! > 10).length / of.length,
    xorRleGain: mean('xorRleGain'),
    maskedGain: mean('maskedGain'),
    dictionaryGain: mean('dictionaryGain'),
  }
}
