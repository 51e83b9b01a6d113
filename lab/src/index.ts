/** What the command line of subpage finds here: its contract is src/cli/lab.ts of the product. */
import type { Lab } from 'subpage/cli/lab'
import { recordCommand } from './commands/record.ts'
import { reportCommand } from './commands/report.ts'
import { studyCommand } from './commands/study.ts'
import { labRelease } from './package-root.ts'

const lab: Lab = {
  release: labRelease,
  commands: { record: recordCommand, report: reportCommand, study: studyCommand },
  async samplesOfRecording(path, intervalMs) {
    const { readTrace } = await import('./trace.ts')
    const { samplesOfTrace } = await import('./analysis/working-set-trace.ts')
    return samplesOfTrace(readTrace(path), intervalMs)
  },
}

export default lab
