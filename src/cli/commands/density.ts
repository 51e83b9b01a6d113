/** `subpage density`: hold memory in less: what could be saved, and what is. */
import { existsSync, readFileSync } from 'node:fs'
import type { SurveyDepth, SurveyImage } from '../../density/survey.ts'
import { SubpageError } from '../../errors.ts'
import type { DensitySettings } from '../../qemu/guest-record.ts'
import { agentFlags, agentOf, stateOf } from '../agent-of.ts'
import { type Command, type Invocation, read, text } from '../command.ts'
import { guestName, isGuest } from '../guest-name.ts'
import { progress } from '../progress.ts'
import { formatBytes, formatTime, parseMs, parseShare, parseSize, within } from '../sizes.ts'

const verbs = ['analyze', 'status', 'on', 'off', 'tune']

export const densityCommand: Command = {
  name: 'density',
  args: ['<what>', '[targets...]'],
  completes: [verbs, 'guest'],
  summary: 'hold memory in less: share, patch, compress and swap what is cold',
  help: `Examples:
  subpage density analyze vm:web vm:mail dump-of-db.raw
  subpage density on web --target 40% --trust-domain shop
  subpage density status
  subpage density tune web --target 512M --cold 30s
  subpage density off web

analyze changes nothing: it reads images of memory (raw files, sparse or not, ELF cores, uncompressed images of LiME and AVML) and guests of this host (vm:NAME; vm: may be left out where no file has the name) and says, for all of them together, how many pages are zero, identical to another, a small patch of another, or compressible, in this order, and how many blocks repeat below the page, and what sharing those would save besides. Identical and similar pages are found in as many passes as --memory asks for.

on holds the memory of guests densely, of those that run here and of those that wait here to take over: what they have not used for a while leaves their memory for a store of this host, and comes back when they use it. off brings everything back. tune changes how a guest is held. See docs/density.md.`,
  flags: [
    ...agentFlags,
    {
      form: '--target <size-or-share>',
      summary: 'on, tune: memory that the guest shall take, as 512M or 40% (default: all that is cold goes)',
    },
    {
      form: '--trust-domain <name>',
      summary: 'on: share pages with guests of the same name here (default: with itself only)',
    },
    { form: '--recent <time>', summary: 'on, tune: what was used within this time stays', default: '2s' },
    {
      form: '--cold <time>',
      summary: 'on, tune: what was not used for this long may go; before, only if it is shared or similar',
      default: '10s',
    },
    {
      form: '--budget <share>',
      summary: 'on, tune: share of one core for moving pages, and of the time of the guest for watching them',
      default: '1%',
    },
    {
      form: '--shape <detector>',
      summary: 'analyze: how similar pages are found: k hashes of s lines, c pages kept under each',
      default: '(2,1),1',
    },
    {
      form: '--depth <depth>',
      summary: 'how far analyze goes',
      default: 'pack',
      choices: ['share', 'patch', 'pack'],
    },
    { form: '--memory <size>', summary: 'memory for the tables of analyze', default: '256M' },
  ],
  async run(invocation) {
    const [what, targets] = [String(invocation.args[0]), invocation.args.slice(1).flat()]
    if (!verbs.includes(what))
      throw new SubpageError('BAD_ARGUMENT', `"${what}" is not one of ${verbs.join(', ')}`)
    if (what === 'analyze') return await analyze(invocation, targets)
    if (what === 'status') return await status(invocation, targets.map(guestName))
    if (targets.length === 0) throw new SubpageError('BAD_ARGUMENT', `${what} needs the name of a guest`)
    for (const name of targets) await change(invocation, what, guestName(name))
  },
}

async function change(invocation: Invocation, what: string, name: string): Promise<void> {
  const agent = agentOf(invocation)
  if (what === 'off') {
    const done = await agent.densityOff(name)
    return invocation.output.data(done, () => `${name}: every page is back in memory`)
  }
  const present = (await agent.density()).guests.find((guest) => guest.name === name)
  if (what === 'tune' && !present)
    throw new SubpageError('BAD_ARGUMENT', `${name} is not held densely: subpage density on ${name}`)
  const { ramBytes } = await agent.guest(name)
  const done = await agent.densityOn(name, settingsOf(invocation, ramBytes, present?.settings.trustDomain))
  invocation.output.data(done, () => `${name}: its memory is held densely; subpage density status shows how`)
}

function settingsOf(invocation: Invocation, ramBytes: number, present: string | undefined): DensitySettings {
  const { target, trustDomain = present } = invocation.flags
  return {
    ...(target === undefined
      ? {}
      : { targetBytes: read(invocation, 'target', (size) => targetOf(size, ramBytes)) }),
    ...(trustDomain === undefined ? {} : { trustDomain: String(trustDomain) }),
    recentMs: read(invocation, 'recent', upToADay),
    coldMs: read(invocation, 'cold', upToADay),
    budget: read(invocation, 'budget', within(parseShare, 0.001, 1, formatShare)),
  }
}

/** As the agent takes them (src/agent/api.ts). */
const upToADay = within(parseMs, 1, 86_400_000, formatTime)
const formatShare = (share: number) => `${100 * share} %`

/** "40%" of the guest's memory, or a size. */
function targetOf(target: string, ramBytes: number): number {
  return target.endsWith('%') ? Math.ceil(parseShare(target) * ramBytes) : parseSize(target)
}

async function status(invocation: Invocation, names: string[]): Promise<void> {
  const { densityTable } = await import('../density-report.ts')
  const host = await agentOf(invocation).density()
  for (const name of names)
    if (!host.guests.some((guest) => guest.name === name))
      throw new SubpageError('GUEST_UNKNOWN', `${name} is not held densely on this host`)
  const shown = {
    ...host,
    guests: host.guests.filter(({ name }) => names.length === 0 || names.includes(name)),
  }
  invocation.output.data(shown, () => densityTable(shown))
}

async function analyze(invocation: Invocation, targets: string[]): Promise<void> {
  if (targets.length === 0)
    throw new SubpageError('BAD_ARGUMENT', 'analyze needs images of memory, or vm:NAME for a guest')
  const { survey } = await import('../../density/survey.ts')
  const { parseShape } = await import('../../density/shape.ts')
  const { surveyReport } = await import('../density-report.ts')
  const images = await Promise.all(targets.map((target) => imageOf(invocation, target)))
  const options = {
    shape: read(invocation, 'shape', parseShape),
    depth: text(invocation, 'depth') as SurveyDepth,
    memoryBytes: read(invocation, 'memory', parseSize),
  }
  const bytes = images.flatMap(({ extents }) => extents).reduce((sum, extent) => sum + extent.bytes, 0)
  const readBefore = bytesRead()
  using _ = progress(
    invocation.output,
    (seconds) =>
      `analyzing ${formatBytes(bytes)}: ${seconds} s, ${formatBytes(bytesRead() - readBefore)} read (memory is read once or more)`,
  )
  const found = await survey(images, options)
  invocation.output.data(found, () => surveyReport(found))
}

/** By this process until now, whatever it was (proc(5), io). */
const bytesRead = () => Number(/^rchar: (\d+)/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1] ?? 0)

async function imageOf(invocation: Invocation, target: string): Promise<SurveyImage> {
  const { ramImage, surveyImage } = await import('../../density/survey-images.ts')
  const { ramPathOf } = await import('../../memory/ram-path.ts')
  if (!isGuest(target)) return surveyImage(target)
  const { guestFiles } = await import('../../qemu/guest-files.ts')
  const { readRecord } = await import('../../qemu/guest-record.ts')
  const name = guestName(target)
  const files = guestFiles(stateOf(invocation), name)
  const record = readRecord(files)
  const ram = record ? ramPathOf(record.process.pid, files.ram) : files.ram
  if (!existsSync(ram))
    throw new SubpageError(
      'GUEST_UNKNOWN',
      target.startsWith('vm:')
        ? `no guest "${name}" has memory on this host`
        : `there is neither a file "${target}" nor a guest of this name on this host`,
    )
  if (record?.density)
    throw new SubpageError(
      'GUEST_DENSE',
      `${name} cannot be analyzed while its memory is held densely: subpage density status says what that saves`,
    )
  return ramImage(ram, target)
}
