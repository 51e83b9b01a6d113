/**
 * `subpage study sync`: what each way of sending less saves, on recorded guests, through the code that `protect` runs. After
 * the evaluations of Lu and Chiueh (DSN 2009), Lu and Ravindran (FGBI), and the line deltas of SoCC 2022.
 */
import { mkdirSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { needBuilt } from 'subpage/built'
import { SubpageError } from 'subpage/errors'
import { type GuestWorkload, guestWorkloads } from '../guest-workload.ts'
import { Reaper } from '../reaper.ts'
import { type Study, type StudyOptions, type StudyResult, untilInterrupted } from '../study.ts'
import { readTrace } from '../trace.ts'
import { WorkloadGuest } from '../workload-guest.ts'
import { headlineOf, judge } from './headline.ts'
import { type Cell, measure } from './measure.ts'
import { recordGuest } from './recorded-guest.ts'
import { type Result, report, text } from './result.ts'
import { measureServed, measureSlave, type SlaveCell, startPrimary, startSlave } from './slave/measure.ts'
import { SlaveNetwork } from './slave/network.ts'
import { servedPort, servedWorkloads } from './slave/served.ts'
import { techniques } from './technique.ts'

const sets = {
  quick: { epochLengths: [25, 100], recordMs: 2_000, slaveEpochs: 8 },
  full: { epochLengths: [10, 25, 100, 400], recordMs: 4_000, slaveEpochs: 30 },
}

export const study: Study = {
  async run(options: StudyOptions): Promise<StudyResult> {
    const { set, signal, note, traces, keep } = options
    const { epochLengths } = sets[set]
    if (!traces) needBuilt('guest', 'workloads')
    const compared = techniques.filter(({ quick }) => quick || set === 'full')
    const folder = keep ?? mkdtempSync(join(tmpdir(), 'subpage-sync-traces-'))
    const reaper = keep === undefined ? new Reaper(folder) : undefined
    try {
      const missing: Result['missing'] = []
      const paths = traces ?? (await recordGuests(options, folder, missing))
      const cells: Cell[] = []
      const slave: SlaveCell[] = []
      const hosts = new Set<string>()
      await untilInterrupted(signal, async () => {
        for (const path of paths) {
          const trace = readTrace(path)
          if (!trace.header.content)
            throw new SubpageError(
              'BAD_ARGUMENT',
              `${path} has no content, so what changed cannot be sent again: record it with --content`,
            )
          hosts.add(`${trace.header.host.cpu}, steps of ${trace.header.epochUs / 1000} ms`)
          const name = basename(path).replace(/\.trace$/, '')
          cells.push(...(await measure(name, trace, compared, epochLengths, note, signal)))
        }
        if (traces) return
        await runSlaves(options, slave)
        await runServed(options, slave)
      })
      if (cells.length === 0) signal.throwIfAborted()
      if (cells.length === 0)
        throw new SubpageError(
          'BAD_ARGUMENT',
          `nothing could be measured: ${missing.map(({ name, why }) => `${name}: ${why}`).join('; ') || 'no recording has a whole epoch'}`,
        )
      const result: Result = {
        set,
        from: `recordings on ${[...hosts].join('; ')}`,
        epochLengths,
        cells,
        slave,
        missing,
        judgement: judge(cells),
        headline: headlineOf(cells, slave),
      }
      return {
        json: { ...result, headline: result.headline },
        text: (terminal) => text(result, terminal),
        report: report(result),
      }
    } finally {
      await reaper?.end()
    }
  },
}

/** Live guests and their slaves; what the guest's image lacks was said when they were recorded. @param cells takes what is measured */
async function runSlaves({ set, only, note, signal }: StudyOptions, cells: SlaveCell[]): Promise<void> {
  const { epochLengths, slaveEpochs } = sets[set]
  note('starting a guest and its slave')
  await using guest = await startPrimary(signal)
  await using slave = await startSlave(guest)
  for (const workload of chosenWorkloads(set, only)) {
    if ((await guest.lacks(workload)).length > 0) continue
    note(`${workload.name}, with an active slave`)
    await measureSlave(guest, slave, workload, { epochLengths, epochs: slaveEpochs }, (cell) =>
      cells.push(cell),
    )
  }
}

/** As `runSlaves`, of guests whose clients are outside: those have a network. */
async function runServed({ set, only, note, signal }: StudyOptions, cells: SlaveCell[]): Promise<void> {
  const workloads = chosen(servedWorkloads, set, only)
  if (workloads.length === 0) return
  const { epochLengths, slaveEpochs } = sets[set]
  note('starting a guest with clients outside, and its slave')
  await using network = await SlaveNetwork.open(servedPort)
  await using guest = await startPrimary(signal, network)
  await using slave = await startSlave(guest, network)
  for (const workload of workloads) {
    if ((await guest.lacks(workload)).length > 0) continue
    note(`${workload.name}, with an active slave`)
    const plan = { epochLengths, epochs: slaveEpochs }
    await measureServed({ guest, slave, network }, workload, plan, (cell) => cells.push(cell))
  }
}

const chosen = <T extends GuestWorkload>(
  workloads: readonly T[],
  set: StudyOptions['set'],
  only: StudyOptions['only'],
): T[] => workloads.filter(({ name, quick }) => (only ? only.includes(name) : set === 'full' || quick))

/** @throws SubpageError BAD_ARGUMENT when it is none */
function chosenWorkloads(set: StudyOptions['set'], only: StudyOptions['only']): GuestWorkload[] {
  const workloads = guestWorkloads()
  const named = chosen(workloads, set, only)
  if (named.length > 0) return named
  const names = (some: readonly GuestWorkload[]) => some.map(({ name }) => name).join(', ')
  throw new SubpageError(
    'BAD_ARGUMENT',
    `no workload that can be recorded is named ${only?.join(', ')}: choose ${names(workloads)}; beside them, ${names(servedWorkloads)}`,
  )
}

/** One guest, one workload after the other; it has ended before anything is measured. @returns the recordings */
async function recordGuests(
  { set, only, note, signal }: StudyOptions,
  folder: string,
  missing: Result['missing'],
): Promise<string[]> {
  const workloads = chosenWorkloads(set, only)
  mkdirSync(folder, { recursive: true })
  note('starting a guest')
  const guest = await WorkloadGuest.start(signal)
  const paths: string[] = []
  try {
    for (const workload of workloads) {
      const lacks = await guest.lacks(workload)
      if (lacks.length > 0) {
        missing.push({ name: workload.name, why: `the guest's image lacks ${lacks.join(', ')}` })
        continue
      }
      note(`recording ${workload.name}`)
      const path = join(folder, `${workload.name}.trace`)
      await recordGuest(guest, workload, path, sets[set].recordMs)
      paths.push(path)
    }
  } finally {
    await guest.end()
  }
  return paths
}
