/** `subpage record`: what a guest, a process or a series of images does to its memory, into a trace file. */

import { stateOf } from 'subpage/cli/agent-of'
import { type Invocation, read, text } from 'subpage/cli/command'
import { guestName } from 'subpage/cli/guest-name'
import { interruptible } from 'subpage/cli/interruption'
import type { LabCommand } from 'subpage/cli/lab'
import type { Output } from 'subpage/cli/output'
import { formatBytes, formatUs, parseMs } from 'subpage/cli/sizes'
import { startedWith } from 'subpage/cli/started-with'
import { SubpageError } from 'subpage/errors'
import { checkOutput } from 'subpage/output-file'
import type { TrackerChoice } from 'subpage/tracking/tracker'
import { counted } from 'subpage/units'
import type { Holes } from '../record/images.ts'
import type { HeldFigures, RecordOptions, RecordSummary } from '../record/recorder.ts'
import type { RecordTarget } from '../record/target.ts'
import type { RecordTracker } from '../record/vm-tracking.ts'

export const recordCommand: LabCommand = {
  args: ['[target...]'],
  completes: ['guest'],
  rest: 'COMMAND',
  help: `Targets:
  vm:NAME         a guest that an agent of this host runs, vm: may be left out; --state as the agent has it
  pid:PID         a process that runs
  -- COMMAND …    a command, from its first instruction; what it prints goes to standard error, and its exit status is that
                  of record (128 and the signal's number when one killed it)
  images A B …    memory images in their order: raw, sparse (Firecracker's snapshots), ELF cores (gcore, dump-guest-memory), LiME

Examples:
  subpage record vm:web --for 30s --epoch 10ms -o web.trace
  subpage record pid:4711 --for 10s -o redis.trace
  subpage record --epoch 1ms -o sort.trace -- sort big.txt
  subpage record images full.mem diff1.mem diff2.mem --holes unchanged -o snapshots.trace

The trackers lines, pml and prl need a guest that was started with run --track.
The target is held for a moment at the end of each epoch and runs on as if nobody had watched. Interrupt to end early: the trace
is whole. Of processes the one that is named is recorded, or the command itself, and what it turns into by exec; not its children. \`subpage report FILE\` explains it, on any machine.`,
  flags: [
    { form: '-o, --output <file>', summary: 'where the trace goes' },
    { form: '--for <time>', summary: 'how long (default: until it is interrupted)' },
    { form: '--epoch <time>', summary: 'length of an epoch', default: '10ms' },
    {
      form: '--tracker <tracker>',
      summary: 'how written pages are found',
      default: 'auto',
      choices: ['auto', 'userfault', 'compare', 'lines', 'pml', 'prl'],
    },
    { form: '--content', summary: 'keep the changed bytes too, for studies of codecs' },
    {
      form: '--holes <meaning>',
      summary: 'what a hole in an image after the first means',
      choices: ['unchanged', 'zero'],
    },
    { form: '--force', summary: 'replace the file' },
    { form: '--state <dir>', summary: 'state directory of the agent (default: /run/subpage for root)' },
  ],
  async run(invocation) {
    const { flags, output } = invocation
    if (flags.output === undefined)
      throw new SubpageError('BAD_ARGUMENT', 'say where the trace goes: -o FILE')
    const path = String(flags.output)
    const replace = flags.force === true
    const options: Omit<RecordOptions, 'signal'> = {
      path,
      replace,
      epochMs: read(invocation, 'epoch', parseMs),
      forMs: flags.for === undefined ? undefined : read(invocation, 'for', parseMs),
      content: flags.content === true,
      progress: (so) => output.note(line(so)),
      noted: (note) => output.note(`  ${note}`),
    }
    // Before any command is started or any target is held.
    checkOutput(path, { replace, mode: 0o600 })
    const summary = await interruptible((signal) => recordTarget(invocation, { ...options, signal }))
    output.data({ ...summary, path }, () => report(summary, path))
    return invocation.rest.length > 0 ? statusOf(summary) : undefined
  },
}

async function recordTarget(invocation: Invocation, options: RecordOptions): Promise<RecordSummary> {
  const { args, flags } = invocation
  if (args[0] === 'images') {
    const { recordImages } = await import('../record/images.ts')
    return await recordImages(args.slice(1), flags.holes as Holes | undefined, options)
  }
  const target = await openTarget(invocation)
  try {
    announce(invocation.output, target)
    const { record } = await import('../record/recorder.ts')
    return await record(target, options)
  } finally {
    await target.close()
  }
}

async function openTarget(invocation: Invocation): Promise<RecordTarget> {
  const { args, rest } = invocation
  const choice = text(invocation, 'tracker') as RecordTracker
  const [target = '', ...more] = args
  if (rest.length > 0) {
    if (target !== '')
      throw new SubpageError('BAD_ARGUMENT', `one target at a time: ${target} or the command after --`)
    const { openProcess } = await import('../record/process/process-target.ts')
    return await openProcess({ command: rest, startedWith }, ofProcess(choice))
  }
  if (more.length > 0)
    throw new SubpageError('BAD_ARGUMENT', `one target at a time: ${target} or ${more.join(' ')}`)
  if (/^pid:[1-9]\d{0,9}$/.test(target)) {
    const { openProcess } = await import('../record/process/process-target.ts')
    return await openProcess({ pid: Number(target.slice(4)) }, ofProcess(choice))
  }
  // As everywhere, vm: may be left out.
  if (/^(vm:.+|[A-Za-z0-9][\w.-]*)$/.test(target)) {
    const { openVm } = await import('../record/vm-target.ts')
    return await openVm(stateOf(invocation), guestName(target), choice)
  }
  const targets = 'vm:NAME, pid:PID, images A B … or -- COMMAND'
  throw new SubpageError(
    'BAD_ARGUMENT',
    target === '' ? `say what to record: ${targets}` : `"${target}" is no target: write ${targets}`,
  )
}

function ofProcess(choice: RecordTracker): TrackerChoice {
  if (choice === 'auto' || choice === 'userfault' || choice === 'compare') return choice
  throw new SubpageError('BAD_ARGUMENT', `tracker ${choice} sees a guest's processor; a process has none`)
}

function announce(output: Output, { name, tracker, memoryBytes, notes }: RecordTarget): void {
  output.note(`recording ${name}: ${formatBytes(memoryBytes)}, tracker ${tracker}`)
  for (const note of notes) output.note(`  ${note}`)
}

const line = (so: RecordSummary) =>
  `  ${seconds(so)}  ${counted(so.epochs, 'epoch')}, ${counted(so.dirtyPages, 'dirty page')}, ${counted(so.gaps, 'gap')}, ${formatBytes(so.traceBytes)}`

const seconds = ({ elapsedMs }: RecordSummary) => `${(elapsedMs / 1000).toFixed(1)} s`

function ending({ cause, endedHow }: RecordSummary): string {
  if (cause === 'target-ended') return ` (the target ended${endedHow ? `: ${endedHow}` : ''})`
  return cause === 'interrupted' ? ' (interrupted)' : ''
}

function heldLine({ share, longestUs, startUs }: HeldFigures): string {
  const start = startUs > 0 ? `, and ${formatUs(startUs)} at the start` : ''
  return `the target was held for ${(100 * share).toPrecision(2)} % of the time, ${formatUs(longestUs)} at most${start}`
}

/** A command's own status is ours, as under nohup(1) or strace(1); of one that goes on there is none. */
function statusOf({ exitStatus, signal }: RecordSummary): number | undefined {
  return signal === undefined ? exitStatus : 128 + signal
}

function report(so: RecordSummary, path: string): string {
  const lines = so.changedLines * 64
  const dirty = so.dirtyPages * 4096
  return [
    `${path}: ${counted(so.epochs, 'epoch')} in ${seconds(so)}${ending(so)}, ${formatBytes(so.traceBytes)}`,
    `dirty pages ${formatBytes(dirty)}, changed lines ${formatBytes(lines)}, amplification ${lines > 0 ? (dirty / lines).toFixed(1) : '-'}`,
    ...(so.held ? [heldLine(so.held)] : []),
    so.gaps > 0 ? `${counted(so.gaps, 'gap')}: the recorder fell behind; choose a longer --epoch` : 'no gaps',
    ...(so.epochs === 0 ? ['nothing was recorded: no epoch had ended'] : []),
  ].join('\n')
}
