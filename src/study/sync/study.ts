/**
 * `subpage study sync`: what each way of sending less saves, on recorded guests, through the code that `protect` runs. After
 * the evaluations of Lu and Chiueh (DSN 2009), Lu and Ravindran (FGBI), and the line deltas of SoCC 2022.
 */
import { copyFileSync, mkdirSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { SubpageError } from '../../errors.ts'
import type { Study, StudyOptions, StudyResult } from '../study.ts'
import { readTrace, type Trace } from '../trace.ts'
import { headlineOf } from './headline.ts'
import { type Cell, measure } from './measure.ts'
import { RecordedGuest } from './recorded-guest.ts'
import { type Result, report, text } from './result.ts'
import { techniques } from './technique.ts'
import { workloads } from './workloads.ts'

const sets = {
  quick: { epochLengths: [25, 100], recordMs: 2_000 },
  full: { epochLengths: [10, 25, 100, 400], recordMs: 10_000 },
}

export const study: Study = {
  async run(options: StudyOptions): Promise<StudyResult> {
    const { set, signal, note } = options
    const { epochLengths } = sets[set]
    const compared = techniques.filter(({ quick }) => quick || set === 'full')
    const cells: Cell[] = []
    const missing: Result['missing'] = []
    const source = options.traces
      ? tracesGiven(options.traces)
      : guestsRecorded(options, (name, why) => missing.push({ name, why }))
    let from = 'recordings that were given'
    for await (const { name, trace } of source) {
      from = `${trace.header.target.kind} recordings of ${trace.header.host.cpu}`
      cells.push(...(await measure(name, trace, compared, epochLengths, note, signal)))
    }
    if (cells.length === 0)
      throw new SubpageError(
        'BAD_ARGUMENT',
        `nothing could be measured: ${missing.map(({ name, why }) => `${name}: ${why}`).join('; ') || 'no recording has a whole epoch'}`,
      )
    const result: Result = { set, from, epochLengths, cells, missing, headline: headlineOf(cells) }
    return {
      json: { ...result, headline: result.headline },
      text: (terminal) => text(result, terminal),
      report: report(result),
    }
  },
}

interface Named {
  name: string
  trace: Trace
}

function* tracesGiven(paths: readonly string[]): Generator<Named> {
  for (const path of paths) {
    const trace = readTrace(path)
    if (!trace.header.content)
      throw new SubpageError(
        'BAD_ARGUMENT',
        `${path} has no content, and what changed cannot be sent again: record it with --content`,
      )
    yield { name: basename(path).replace(/\.trace$/, ''), trace }
  }
}

async function* guestsRecorded(
  { set, only, keep, note, signal }: StudyOptions,
  missing: (name: string, why: string) => void,
): AsyncGenerator<Named> {
  const chosen = workloads.filter(({ name, quick }) => (only ? only.includes(name) : set === 'full' || quick))
  if (chosen.length === 0)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `no workload is named ${only?.join(', ')}: choose ${workloads.map(({ name }) => name).join(', ')}`,
    )
  if (keep !== undefined) mkdirSync(keep, { recursive: true })
  note('starting a guest')
  const guest = await RecordedGuest.start(signal)
  try {
    for (const workload of chosen) {
      const lacks = await guest.lacks(workload)
      if (lacks.length > 0) {
        missing(workload.name, `the guest's image lacks ${lacks.join(', ')}`)
        continue
      }
      note(`recording ${workload.name}`)
      const path = await guest.record(workload, sets[set].recordMs)
      if (keep !== undefined) copyFileSync(path, join(keep, basename(path)))
      yield { name: workload.name, trace: readTrace(path) }
      rmSync(path)
    }
  } finally {
    await guest.end()
  }
}
