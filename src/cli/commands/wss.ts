/** `subpage wss`: how much memory a guest or a process needs, found out by watching which of its pages it uses. */
import type { WatchQuery } from '../../agent/supervisor/memory-watch.ts'
import { asSubpageError, exitStatus, SubpageError } from '../../errors.ts'
import { pageBytes } from '../../memory/page.ts'
import type { Sample } from '../../workingset/sample.ts'
import { agentFlags, agentOf } from '../agent-of.ts'
import { type Command, type Invocation, read } from '../command.ts'
import { guestName, isGuest } from '../guest-name.ts'
import { interruptible } from '../interruption.ts'
import { loadLab } from '../lab.ts'
import { progressEvery } from '../progress.ts'
import { checkReport, reportFlags, writeAsAsked } from '../report-flags.ts'
import { formatBytes, formatTime, parseMs, parseShare, parseSize, within } from '../sizes.ts'

export const wssCommand: Command = {
  name: 'wss',
  args: ['<target>'],
  completes: ['guest'],
  summary: 'how much memory a guest or a process works with',
  help: `Targets:
  vm:NAME    a guest of this host, running alone or protected; vm: may be left out
  pid:PID    any process of this host
  FILE       a recording of \`subpage record\`: what was written only

Examples:
  subpage wss web
  subpage wss web --for 1h --interval 10s --html web.html
  subpage wss web --watch
  subpage wss pid:4711 --for 1min --json

Nothing is changed in the guest or the process. See docs/working-sets.md for what is measured, how sure it is and how to
read it. Interrupted, it says what it has seen so far.`,
  flags: [
    ...agentFlags,
    { form: '--for <time>', summary: 'how long to watch', default: '10s' },
    {
      form: '--interval <time>',
      summary: 'what is used within this time is the working set',
      default: '1s',
    },
    {
      form: '--budget <share>',
      summary: "share of the guest's time that watching may cost",
      default: '1%',
    },
    {
      form: '--footprint <size>',
      summary: 'what the kernel of the guest keeps for itself (default: estimated)',
    },
    { form: '--watch', summary: 'print every interval, until interrupted' },
    ...reportFlags,
  ],
  async run(invocation) {
    const { output, flags, args } = invocation
    const target = targetOf(String(args[0]))
    const { summaryText, lineText, lineHead, recommendation, notesOn } = await import('../working-set.ts')
    const { summarize } = await import('../../workingset/summary.ts')
    const asked = flags.footprint === undefined ? undefined : read(invocation, 'footprint', parseSize)
    const footprint = asked ?? (target.kind === 'vm' ? undefined : 0)
    const watching = flags.watch === true
    return await interruptible(async (signal) => {
      await checkReport(invocation)
      const samples: Sample[] = []
      const ending: { error?: SubpageError } = {}
      const progress = progressOf(invocation, target)
      if (watching && !output.json) output.data(undefined, () => lineHead)
      for await (const sample of samplesOf(invocation, target, signal, ending)) {
        samples.push(sample)
        if (watching) output.data(sample, () => lineText(sample))
        else progress(sample)
      }
      if (samples.length === 0) {
        if (signal.aborted)
          throw new SubpageError(
            'INTERRUPTED',
            `${target.name} was watched for less than one interval: nothing was measured`,
          )
        if (ending.error) throw ending.error
        throw new SubpageError(
          'BAD_ARGUMENT',
          target.kind === 'trace'
            ? `${target.name} is shorter than one interval: choose a shorter --interval, or record for longer`
            : `no interval has ended: watch ${target.name} for longer than --interval`,
        )
      }
      if (ending.error) output.warn(`${ending.error.message}: this is what was seen until then`)
      const summary = summarize(samples, footprint)
      if (!watching)
        output.data({ target: target.name, ...summary, samples }, () =>
          summaryText(summary, samples, target.kind),
        )
      const { workingSetReport } = await import('../working-set-report.ts')
      await writeAsAsked(invocation, () => {
        const lead = recommendation(summary, target.kind)
        return workingSetReport({
          target: target.name,
          lead,
          notes: notesOn(summary, target.kind),
          summary,
          samples,
        })
      })
      if (signal.aborted) return exitStatus.interrupted
      // That it ends is no failure of ours, unless it cannot be told.
      return ending.error && ending.error.code !== 'GUEST_DIED' ? ending.error.exit : exitStatus.ok
    })
  },
}

type Target =
  | { kind: 'vm'; name: string; guest: string }
  | { kind: 'pid'; name: string; pid: number }
  | { kind: 'trace'; name: string; path: string }

function targetOf(target: string): Target {
  const [, kind, rest] = /^(vm|pid):(.*)$/.exec(target) ?? []
  if (kind === 'pid') {
    const pid = Number(rest)
    if (!Number.isInteger(pid) || pid <= 0)
      throw new SubpageError('BAD_ARGUMENT', `${target}: name a process by its number, as in pid:4711`)
    return { kind, name: target, pid }
  }
  if (!isGuest(target)) return { kind: 'trace', name: target, path: target }
  const guest = guestName(target)
  return { kind: 'vm', name: `vm:${guest}`, guest }
}

/** Says from time to time how far it is. */
function progressOf({ output, flags }: Invocation, target: Target): (sample: Sample) => void {
  if (target.kind === 'trace') return () => undefined
  const forMs = parseMs(String(flags.for))
  const [startedAt, everyMs] = [performance.now(), progressEvery(forMs)]
  let saidAt = startedAt
  return ({ dist }) => {
    const now = performance.now()
    if (now - saidAt < everyMs) return
    saidAt = now
    output.note(
      `  ${formatTime(now - startedAt)} of ${formatTime(forMs)}: ${formatBytes(dist.pages * pageBytes)} used in the last interval`,
    )
  }
}

/**
 * Ends when the time is over, the recording ends, or somebody interrupts.
 * @param ending is told what has ended it otherwise, once there was something to see
 */
async function* samplesOf(
  invocation: Invocation,
  target: Target,
  signal: AbortSignal,
  ending: { error?: SubpageError },
): AsyncGenerator<Sample> {
  const intervalMs = read(invocation, 'interval', within(parseMs, 50, 3_600_000, formatTime))
  if (target.kind === 'trace') {
    const lab = await loadLab('the working set of a recording')
    yield* await lab.samplesOfRecording(target.path, intervalMs)
    return
  }
  const forMs = invocation.flags.watch === true ? Number.POSITIVE_INFINITY : read(invocation, 'for', parseMs)
  if (forMs < intervalMs)
    throw new SubpageError(
      'BAD_ARGUMENT',
      '--for must be longer than --interval, so that an interval can end',
    )
  const startedAt = performance.now()
  const settings: WatchQuery = {
    intervalMs,
    subIntervals: 1,
    budget: read(invocation, 'budget', parseShare),
  }
  let seen = false
  try {
    for await (const sample of await source(invocation, target, settings, signal)) {
      seen = true
      yield sample
      // One that would end after the time is not waited for.
      if (performance.now() - startedAt + intervalMs / 2 > forMs) return
    }
  } catch (error) {
    if (signal.aborted) return
    const known = asSubpageError(error)
    if (!seen || known.code === 'INTERNAL') throw error
    ending.error = known
  }
}

async function source(
  invocation: Invocation,
  target: Exclude<Target, { kind: 'trace' }>,
  settings: WatchQuery,
  signal: AbortSignal,
): Promise<AsyncIterable<Sample>> {
  if (target.kind === 'vm') return agentOf(invocation).watchMemory(target.guest, settings, signal)
  const { watchProcess } = await import('../../workingset/process.ts')
  return watchProcess(target.pid, settings.intervalMs, signal)
}
