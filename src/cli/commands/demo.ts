/** `subpage demo`: shows, on one machine, a guest that survives the death of its QEMU. */

import type { RunBody } from '../../agent/api.ts'
import type { DemoObserver, DemoSummary } from '../../agent/demo.ts'
import type { GuestStatus } from '../../agent/status.ts'
import { needBuilt } from '../../built.ts'
import { exitStatus, SubpageError } from '../../errors.ts'
import { type Command, read, text } from '../command.ts'
import { interruptible } from '../interruption.ts'
import { type Output, pairs } from '../output.ts'
import { formatBytes, formatUs, parseMs, parseSize, within } from '../sizes.ts'

export const demoCommand: Command = {
  name: 'demo',
  args: [],
  summary: 'watch a guest survive the SIGKILL of its QEMU, on this machine',
  help: 'Starts two agents, a guest and its standby, kills the guest, and shows it running on. Leaves nothing behind.',
  flags: [
    { form: '--ram <size>', summary: 'guest memory', default: '256M' },
    { form: '--epoch <time>', summary: 'time between two checkpoints', default: '25ms' },
    {
      form: '--accel <accel>',
      summary: 'how the guest is executed',
      default: 'auto',
      choices: ['auto', 'kvm', 'tcg'],
    },
    { form: '--watch <time>', summary: 'how long to watch epochs before the kill', default: '6s' },
  ],
  async run(invocation) {
    const { output } = invocation
    const { demo, demoRamBytesMin } = await import('../../agent/demo.ts')
    const options = {
      ramBytes: read(
        invocation,
        'ram',
        within(parseSize, demoRamBytesMin, Number.MAX_SAFE_INTEGER, formatBytes),
      ),
      epochMs: read(invocation, 'epoch', parseMs),
      accel: text(invocation, 'accel') as RunBody['accel'],
      watchMs: read(invocation, 'watch', parseMs),
    }
    needBuilt('native', 'guest')
    const summary = await interruptible(async (signal) =>
      demo(options, observe(output), signal).catch((error) => {
        if (!signal.aborted) throw error
        throw new SubpageError('INTERRUPTED', 'the demo was ended early; nothing of it is left', {
          cause: error,
        })
      }),
    )
    output.data(summary, () => report(summary))
    return isRight(summary) ? exitStatus.ok : exitStatus.failed
  },
}

function observe(output: Output): DemoObserver {
  if (output.json) return { say: () => undefined, epochs: () => undefined }
  let headed = false
  return {
    say: (line) => output.note(`• ${line}`),
    epochs(status: GuestStatus) {
      if (!status.epochs || !status.last) return
      if (!headed)
        output.note(
          `\n  ${row('checkpoint', 'pause', 'dirty pages', 'changed lines', 'sent', 'amplification')}`,
        )
      headed = true
      const { last, epochs } = status
      output.note(
        `  ${row(
          String(epochs.checkpoints),
          formatUs(last.pauseUs),
          String(last.dirtyPages),
          String(last.changedLines),
          formatBytes(last.sentBytes),
          (epochs.amplification ?? 0).toFixed(1),
        )}`,
      )
    },
  }
}

const widths = [10, 7, 11, 13, 8, 13]
const row = (...cells: string[]) => cells.map((cell, i) => cell.padStart(widths[i]!)).join('  ')

function report(summary: DemoSummary): string {
  const { guest, disk, bytes, pauseUs } = summary
  const yes = (holds: boolean) => (holds ? 'yes' : 'NO')
  const rows = [
    ['The guest runs on', yes(guest.continued)],
    ['Its memory verified itself', yes(guest.verified)],
    ['Committed steps lost', String(guest.lost)],
    ['Records on its disk lost', `${disk.lost} of ${disk.committed} that were committed`],
    ['Steps done again', `${summary.stepsRepeated} (since the last checkpoint)`],
    ['From SIGKILL to running again', `${summary.failoverMs} ms`],
    ['Checkpoints', String(summary.checkpoints)],
    [
      'Pause of a checkpoint',
      `p50 ${formatUs(pauseUs.p50)}, p99 ${formatUs(pauseUs.p99)}, max ${formatUs(pauseUs.max)}`,
    ],
    ['Dirty pages', formatBytes(bytes.dirtyPages)],
    [
      'Changed lines',
      `${formatBytes(bytes.changedLines)} (amplification ${summary.amplification?.toFixed(1) ?? '-'})`,
    ],
    [
      'Sent',
      `${formatBytes(bytes.sent)}, ${((100 * bytes.sent) / bytes.dirtyPages).toFixed(0)} % of the dirty pages`,
    ],
    ['Tracker, acceleration', `${summary.tracker}, ${summary.accel}`],
  ]
  return `\n${pairs(rows)}\n\n${words(summary)}`
}

const isRight = ({ guest, disk }: DemoSummary) =>
  guest.continued && guest.verified && guest.lost === 0 && disk.lost === 0

function words(summary: DemoSummary): string {
  if (!isRight(summary)) return 'This failover went WRONG: please report it, with the output above.'
  return `What happened: the guest's QEMU was killed without warning. Host b held a
copy of the guest's memory and disk that was one checkpoint old. It loaded the
state of the devices and let the guest run, ${summary.failoverMs} ms after the kill. To the
guest nothing happened: it went on from its last checkpoint, all its memory is
as it should be, and so is the file on its disk.`
}
