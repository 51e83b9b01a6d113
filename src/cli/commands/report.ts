/** `subpage report`: explains what a recording holds. A pure function of a file: no privileges, no agent, any machine. */
import { type Command, read } from '../command.ts'
import { checkReport, reportFlags, writeAsAsked } from '../report-flags.ts'
import { parseMs } from '../sizes.ts'

export const reportCommand: Command = {
  name: 'report',
  args: ['<file>'],
  summary: 'explain what a recording of `subpage record` shows',
  help: `Prints tables with bars; --html writes one page with plots that needs nothing else to be read.
Example: subpage report redis.trace --epoch 100ms --html redis.html`,
  flags: [
    { form: '--epoch <time>', summary: 'answer for another epoch length: a multiple of the recorded one' },
    ...reportFlags,
  ],
  async run(invocation) {
    const { args, flags, output } = invocation
    const epochUs = typeof flags.epoch === 'string' ? 1000 * read(invocation, 'epoch', parseMs) : undefined
    const { readTrace } = await import('../../study/trace.ts')
    const { summarize } = await import('../../study/analysis/summary.ts')
    const { traceJson, traceReport } = await import('../../study/analysis/trace-report.ts')
    const { traceText } = await import('../../study/analysis/trace-text.ts')
    const { terminalOf } = await import('../../study/report/terminal.ts')
    await checkReport(invocation)
    const summary = summarize(readTrace(args[0]!), epochUs === undefined ? {} : { epochUs })
    output.data(traceJson(summary), () => traceText(summary, terminalOf(process.stdout, process.env)))
    await writeAsAsked(invocation, () => traceReport(summary))
  },
}
