/** `subpage wss`: how much memory a guest needs, found out by watching which of its pages it uses. */
import type { WatchQuery } from '../../agent/memory-watch.ts'
import { SubpageError } from '../../errors.ts'
import type { Sample } from '../../workingset/sample.ts'
import { agentFlags, agentOf } from '../agent-of.ts'
import { type Command, type Invocation, text } from '../command.ts'
import { parseShare, parseSize, parseSpan } from '../sizes.ts'

export const wssCommand: Command = {
  name: 'wss',
  args: ['<target>'],
  summary: 'how much memory a guest works with',
  help: `Examples:
  subpage wss web
  subpage wss web --for 1h --interval 10s --json
  subpage wss web --watch

Nothing is changed in the guest, and a protected one can be watched too. See docs/working-sets.md for what is measured, how
sure it is and how to read it.`,
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
  ],
  async run(invocation) {
    const { output, flags } = invocation
    const { summaryText, lineText, lineHead } = await import('../working-set.ts')
    const { summarize } = await import('../../workingset/summary.ts')
    const footprint = flags.footprint === undefined ? undefined : parseSize(text(invocation, 'footprint'))
    const watching = flags.watch === true
    const samples: Sample[] = []
    if (watching && !output.json) output.data(undefined, () => lineHead)
    for await (const sample of samplesOf(
      invocation,
      watching ? undefined : parseSpan(text(invocation, 'for')),
    )) {
      samples.push(sample)
      if (watching) output.data(sample, () => lineText(sample))
    }
    if (watching) return
    if (samples.length === 0)
      throw new SubpageError(
        'BAD_ARGUMENT',
        '--for must be longer than --interval, so that an interval can end',
      )
    const summary = summarize(samples, footprint)
    output.data({ ...summary, samples }, () => summaryText(summary, samples))
  },
}

/** @param forMs undefined: for ever */
async function* samplesOf(invocation: Invocation, forMs: number | undefined): AsyncGenerator<Sample> {
  const settings: WatchQuery = {
    intervalMs: parseSpan(text(invocation, 'interval')),
    subIntervals: 1,
    budget: parseShare(text(invocation, 'budget')),
  }
  const startedAt = performance.now()
  for await (const sample of agentOf(invocation).watchMemory(nameOf(invocation), settings)) {
    yield sample
    // One that would end after the time is not waited for.
    if (forMs !== undefined && performance.now() - startedAt + settings.intervalMs / 2 > forMs) return
  }
}

function nameOf({ args }: Invocation): string {
  const target = String(args[0])
  const [, kind, rest] = /^(vm|pid):(.*)$/.exec(target) ?? [undefined, 'vm', target]
  if (kind === 'pid')
    throw new SubpageError('BAD_ARGUMENT', `${target}: name a guest of this host, as in vm:NAME`)
  return rest!
}
