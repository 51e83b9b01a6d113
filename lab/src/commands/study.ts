/** `subpage study`: repeats the experiments of the papers on this machine. */

import { text } from 'subpage/cli/command'
import { interruptible } from 'subpage/cli/interruption'
import type { LabCommand } from 'subpage/cli/lab'
import { table } from 'subpage/cli/output'
import { checkReport, reportFlags, writeAsAsked } from 'subpage/cli/report-flags'
import { exitStatus, SubpageError } from 'subpage/errors'
import { studies } from '../studies.ts'
import type { StudySet } from '../study.ts'

export const studyCommand: LabCommand = {
  args: ['[name]'],
  help: `Without a name it lists the studies. What a study needs and this machine lacks is named in the result. Interrupted, it
shows what it has measured until then.
Example: subpage study amplification --set quick --html amplification.html`,
  flags: [
    {
      form: '--set <set>',
      summary: 'quick takes about a minute, full what the study needs',
      default: 'quick',
      choices: ['quick', 'full'],
    },
    {
      form: '--only <names>',
      summary: 'only these parts, such as workloads, separated by commas',
      many: true,
    },
    {
      form: '--trace <files>',
      summary: 'take recordings with content in place of guests (sync), separated by commas',
      many: true,
    },
    { form: '--keep <folder>', summary: 'keep the recordings that the study makes, for --trace' },
    ...reportFlags,
  ],
  async run(invocation) {
    const { args, flags, output } = invocation
    const name = args[0]
    if (name === undefined) {
      const listed = Object.entries(studies).map(([name, { summary }]) => ({ name, summary }))
      output.data({ studies: listed }, () => table(listed.map(({ name, summary }) => [name, summary])))
      return exitStatus.ok
    }
    const entry = Object.hasOwn(studies, name) ? studies[name] : undefined
    if (!entry)
      throw new SubpageError(
        'BAD_ARGUMENT',
        `no study is named "${name}": choose ${Object.keys(studies).join(', ')}`,
      )
    if ((flags.trace !== undefined || flags.keep !== undefined) && !entry.takesTraces)
      throw new SubpageError('BAD_ARGUMENT', `the study ${name} makes and takes no recordings`)
    const { terminalOf } = await import('../report/terminal.ts')
    return await interruptible(async (signal) => {
      const study = await entry.load()
      await checkReport(invocation)
      const result = await study
        .run({
          set: text(invocation, 'set') as StudySet,
          ...(typeof flags.only === 'string' && { only: parts(flags.only) }),
          ...(typeof flags.trace === 'string' && { traces: parts(flags.trace) }),
          ...(typeof flags.keep === 'string' && { keep: flags.keep }),
          note: (line) => output.note(line),
          signal,
        })
        .catch((cause) => {
          if (!signal.aborted) throw cause
          throw new SubpageError(
            'INTERRUPTED',
            `the study ${name} was ended before it had measured anything`,
            { cause },
          )
        })
      const { aborted } = signal
      const { json, report } = result
      output.data(aborted ? { interrupted: true, ...json } : json, () =>
        [...(aborted ? [partly, ''] : []), result.text(terminalOf(process.stdout, process.env))].join('\n'),
      )
      await writeAsAsked(invocation, () =>
        aborted ? { ...report, lead: `${partly} ${report.lead}` } : report,
      )
      return aborted ? exitStatus.interrupted : exitStatus.ok
    })
  },
}

const partly = 'The study was interrupted: this is what was measured until then.'
const parts = (list: string) => list.split(',').filter((part) => part !== '')
