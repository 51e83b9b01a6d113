/**
 * `subpage study pml`: what Page Modification Logging costs a guest, after T = T_PTW + N × (T_x + T_e + T_h) (Bitchebe,
 * Tchana, Réveillère). N, the number of times that a log is full, is measured for each workload and for logs of 128 to 4096
 * entries, by a model of the hardware inside QEMU; the prices are inputs (model.ts). Beside it stand write protection, as
 * this host does it, and what each tracker of subpage costs a guest.
 */
import { needBuilt } from 'subpage/built'
import { SubpageError } from 'subpage/errors'
import { addon } from 'subpage/memory/native'
import { type Study, type StudyOptions, type StudyResult, untilInterrupted } from '../study.ts'
import { endlessWork, LabGuest } from './lab.ts'
import { countFull, measureOverhead, type Overhead, trackerNames, type Windows } from './measure.ts'
import { inputSources, inputs, protectionShare, sharesBySize } from './model.ts'
import { type Counted, type Result, report, text } from './result.ts'
import { workloads } from './workloads.ts'

const sets = {
  quick: { countMs: 2000, image: 'initrd.gz', windows: { pairs: 3, windowMs: 1000 } },
  full: { countMs: 10_000, image: 'initrd-workloads.gz', windows: { pairs: 12, windowMs: 3000 } },
}

export const study: Study = {
  async run({ set, only, note, signal }: StudyOptions): Promise<StudyResult> {
    const wanted = (name: string) => only === undefined || only.some((part) => name.startsWith(part))
    const chosen = workloads.filter(({ name, quick }) => wanted(name) && (only || quick || set === 'full'))
    const trackers = trackerNames.filter(wanted)
    if (chosen.length + trackers.length === 0)
      throw new SubpageError(
        'BAD_ARGUMENT',
        `no part is named ${only?.join(', ')}: they begin with ${[...workloads.map(({ name }) => name), ...trackerNames].join(', ')}`,
      )
    const { countMs, windows } = sets[set]
    const { image } = only ? sets.full : sets[set]
    needBuilt('guest')
    if (chosen.length > 0 && image !== sets.quick.image) needBuilt('workloads')
    const faultNs = addon.writeFaultNs()
    const [counted, overheads]: [Counted[], Overhead[]] = [[], []]
    await untilInterrupted(signal, async () => {
      await countAll(chosen, { ms: countMs, image, faultNs }, { note, signal }, counted)
      await measureAll(trackers, windows, { note, signal }, overheads)
    })
    if (counted.length + overheads.length === 0) signal.throwIfAborted()
    const result: Result = {
      inputs,
      inputSources,
      faultNs,
      counted,
      overheads,
      headline: headlineOf(counted, overheads),
    }
    return { json: { set, ...result }, text: (terminal) => text(result, terminal), report: report(result) }
  },
}

type Progress = Pick<StudyOptions, 'note' | 'signal'>

/** @param counted takes what is measured, also when a later workload fails */
async function countAll(
  chosen: typeof workloads,
  { ms, image, faultNs }: { ms: number; image: string; faultNs: number },
  { note, signal }: Progress,
  counted: Counted[],
): Promise<void> {
  if (chosen.length === 0) return
  note('starting a guest whose writes are logged')
  const guest = await LabGuest.start(['pml'], image, signal)
  try {
    using share = await guest.openShare()
    for (const workload of chosen) {
      note(workload.name)
      const events = await countFull(guest, share, workload, ms, signal)
      counted.push({
        ...events,
        loggingShare: sharesBySize(events),
        protectionShare: protectionShare(events, faultNs, 0),
        protectionShareKvm: protectionShare(events, faultNs, inputs.exitEntryNs),
      })
    }
  } finally {
    await guest.end()
  }
}

async function measureAll(
  trackers: readonly (typeof trackerNames)[number][],
  windows: Windows,
  { note, signal }: Progress,
  overheads: Overhead[],
): Promise<void> {
  if (trackers.length === 0) return
  note('starting a guest without a plugin')
  const plain = await LabGuest.start([], 'initrd.gz', signal)
  try {
    await plain.begin(endlessWork.command, /^victim step=[1-9]/m)
    for (const name of trackers) {
      note(`what ${name} costs`)
      overheads.push(await measureOverhead(plain, name, windows, signal))
    }
  } finally {
    await plain.end()
  }
}

const most = (values: number[]): number | null => (values.length === 0 ? null : Math.max(...values))

/** Shares of the guest's time; null where nothing was measured. */
function headlineOf(counted: Counted[], overheads: Overhead[]) {
  return {
    workloads: counted.length,
    loggingShareMax: most(counted.map(({ loggingShare }) => loggingShare[512])),
    protectionShareMax: most(counted.map(({ protectionShare }) => protectionShare)),
    slowdown: Object.fromEntries(overheads.map(({ name, slowdown }) => [name, slowdown])),
  }
}
