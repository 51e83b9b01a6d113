/** `subpage check`: what this host offers, before anything is started on it; with --guest, whether it keeps a guest alive. */
import { cpus, release as kernelRelease } from 'node:os'
import type { TrialOptions, TrialReport } from '../../agent/guest-trial.ts'
import { needBuilt } from '../../built.ts'
import { exitStatus, SubpageError } from '../../errors.ts'
import { release } from '../../release.ts'
import { formatReport } from '../check.ts'
import { type Command, type Invocation, text } from '../command.ts'
import { interruptible } from '../interruption.ts'
import { pairs } from '../output.ts'
import { formatUs } from '../sizes.ts'

export const checkCommand: Command = {
  name: 'check',
  args: [],
  summary: 'see what this host can do, and what to install',
  help: 'Every line is found out by trying. Exit status 13 when something indispensable is missing.\nWith --guest a guest is protected on this machine by two agents, compared with its standby while it writes its memory as fast as it can, killed, and protected back; the guest is a program without an operating system, so it runs where KVM boots no Linux. What it prints can go into a report of a defect. Nothing is left behind.',
  flags: [
    { form: '--guest', summary: 'put a guest through protection, failover and back on this machine' },
    {
      form: '--accel <accel>',
      summary: 'with --guest: how the guest is executed',
      default: 'auto',
      choices: ['auto', 'kvm', 'tcg'],
    },
    {
      form: '--cpus <n>',
      summary: 'with --guest: its virtual CPUs',
      default: '2',
      choices: ['1', '2', '4', '8'],
    },
  ],
  async run(invocation) {
    const { output, flags } = invocation
    if (flags.guest) return await trial(invocation)
    const { checkHost } = await import('../../qemu/host-check.ts')
    const report = await checkHost()
    output.data(report, () => formatReport(report))
    return report.usable ? exitStatus.ok : exitStatus.lacksFeature
  },
}

async function trial(invocation: Invocation): Promise<number> {
  const { guestTrial } = await import('../../agent/guest-trial.ts')
  const options: TrialOptions = {
    accel: text(invocation, 'accel') as TrialOptions['accel'],
    cpus: Number(text(invocation, 'cpus')),
  }
  needBuilt('native', 'guest')
  const report = await interruptible((signal) =>
    guestTrial(options, signal).catch((error) => {
      if (!signal.aborted) throw error
      throw new SubpageError('INTERRUPTED', 'the trial was ended early; nothing of it is left', {
        cause: error,
      })
    }),
  )
  const host = {
    subpage: release,
    node: process.version,
    kernel: kernelRelease(),
    cpu: cpus()[0]?.model ?? '',
    cores: cpus().length,
  }
  invocation.output.data({ ...report, host }, () => formatTrial(report, host))
  return report.passed ? exitStatus.ok : exitStatus.failed
}

function formatTrial(report: TrialReport, host: Record<string, string | number>): string {
  const { pauseUs, commitUs } = report
  const width = Math.max(...report.steps.map(({ name }) => name.length))
  const steps = report.steps.map(
    ({ ok, name, ms, found }) =>
      `${ok ? '✓' : '✗'} ${name.padEnd(width)}  ${`${(ms / 1000).toFixed(1)} s`.padStart(7)}  ${found}`,
  )
  const facts: [string, string][] = [
    ['subpage', `${host.subpage}, Node ${host.node}`],
    ['host', `Linux ${host.kernel}, ${host.cores} cores, ${host.cpu}`],
    ['guest', `QEMU ${report.qemu}, ${report.accel}, ${report.cpus} virtual CPUs, tracker ${report.tracker}`],
    ...(pauseUs && commitUs
      ? ([
          ['checkpoints', `${report.checkpoints}, ${report.dirtyPages} dirty pages each`],
          ['pause', `${formatUs(pauseUs.p50)} p50, ${formatUs(pauseUs.p99)} p99`],
          ['commit', `${formatUs(commitUs.p50)} p50, ${formatUs(commitUs.p99)} p99`],
        ] as [string, string][])
      : []),
    ...(report.failoverMs === null
      ? []
      : ([['failover', `${report.failoverMs} ms from the SIGKILL`]] as [string, string][])),
  ]
  const verdict = report.passed
    ? 'A guest is safe here.'
    : 'A guest is not safe here: please report this with the lines above.'
  return `${steps.join('\n')}\n\n${pairs(facts)}\n\n${verdict}`
}
