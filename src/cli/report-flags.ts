/** Flags of the commands that write reports. */
import type { Report } from '../study/report/page.ts'
import type { Flag, Invocation } from './command.ts'

export const reportFlags: Flag[] = [
  { form: '--html <file>', summary: 'write one self-contained HTML page with plots' },
  { form: '--csv <folder>', summary: 'write the figures of every plot and table as CSV' },
]

export async function writeAsAsked({ flags, output }: Invocation, report: Report): Promise<void> {
  const { writeReport } = await import('../study/report/write.ts')
  const wanted = (flag: string) => (typeof flags[flag] === 'string' ? { [flag]: flags[flag] } : {})
  for (const line of writeReport(report, { ...wanted('html'), ...wanted('csv') })) output.note(line)
}
