/** `subpage check`: what this host offers, before anything is started on it. */
import { exitStatus } from '../../errors.ts'
import { formatReport } from '../check.ts'
import type { Command } from '../command.ts'

export const checkCommand: Command = {
  name: 'check',
  args: [],
  summary: 'see what this host can do, and what to install',
  help: 'Every line is found out by trying. Exit status 13 when something indispensable is missing.',
  flags: [],
  async run({ output }) {
    const { checkHost } = await import('../../qemu/host-check.ts')
    const report = await checkHost()
    output.data(report, () => formatReport(report))
    return report.usable ? exitStatus.ok : exitStatus.lacksFeature
  },
}
