/** `subpage report`: explains what a recording holds. A pure function of a file: no privileges, no agent, any machine. */
import { read } from 'subpage/cli/command'
import type { LabCommand } from 'subpage/cli/lab'
import { checkReport, reportFlags, writeAsAsked } from 'subpage/cli/report-flags'
import { parseMs } from 'subpage/cli/sizes'

export const reportCommand: LabCommand = {
  args: ['<file>'],
  completes: ['file'],
  help: `Prints tables with bars; --html writes one page with plots that needs nothing else to be read.
Example: subpage report redis.trace --epoch 100ms --html redis.html`,
  flags: [
    { form: '--epoch <time>', summary: 'answer for another epoch length: a multiple of the recorded one' },
    ...reportFlags,
  ],
  async run(invocation) {
    const { args, flags, output } = invocation
    const epochUs = typeof flags.epoch === 'string' ? 1000 * read(invocation, 'epoch', parseMs) : undefined
    const { readTrace } = await import('../trace.ts')
    const { summarize } = await import('../analysis/summary.ts')
    const { traceJson, traceReport } = await import('../analysis/trace-report.ts')
    const { traceText } = await import('../analysis/trace-text.ts')
    const { terminalOf } = await import('../report/terminal.ts')
    await checkReport(invocation)
    const summary = summarize(readTrace(args[0]!), epochUs === undefined ? {} : { epochUs })
    output.data(traceJson(summary), () => traceText(summary, terminalOf(process.stdout, process.env)))
    await writeAsAsked(invocation, () => traceReport(summary))
  },
}
