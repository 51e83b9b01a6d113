/** Flags of the commands that write reports. */
import type { Report } from '../report/page.ts'
import type { ReportPlace } from '../report/write.ts'
import type { Flag, Invocation } from './command.ts'

export const reportFlags: Flag[] = [
  { form: '--html <file>', summary: 'write one self-contained HTML page with plots' },
  { form: '--csv <folder>', summary: 'write the figures of every plot and table as CSV' },
  { form: '--force', summary: 'replace files that exist' },
]

function placeOf({ flags: { html, csv, force } }: Invocation): ReportPlace {
  return {
    replace: force === true,
    ...(typeof html === 'string' && { html }),
    ...(typeof csv === 'string' && { csv }),
  }
}

/** Before anything is measured: whether what is asked for can be written. @throws SubpageError */
export async function checkReport(invocation: Invocation): Promise<void> {
  const { checkReportPlace } = await import('../report/write.ts')
  checkReportPlace(placeOf(invocation))
}

/** After the figures were printed, so that they are not lost when this fails. @throws SubpageError */
export async function writeAsAsked(invocation: Invocation, report: () => Report): Promise<void> {
  const place = placeOf(invocation)
  if (place.html === undefined && place.csv === undefined) return
  const { writeReport } = await import('../report/write.ts')
  for (const line of writeReport(report(), place)) invocation.output.note(line)
}
