/** `subpage density`: hold memory in less: what could be saved, and what is. */
import { existsSync } from 'node:fs'
import type { SurveyDepth, SurveyImage } from '../../density/survey.ts'
import { SubpageError } from '../../errors.ts'
import { agentFlags, stateOf } from '../agent-of.ts'
import { type Command, type Invocation, text } from '../command.ts'
import { parseSize } from '../sizes.ts'

export const densityCommand: Command = {
  name: 'density',
  args: ['<what>', '[targets...]'],
  summary: 'see what sharing, patching and compression save',
  help: `Example:
  subpage density analyze vm:web vm:mail dump-of-db.raw

analyze changes nothing: it reads images of memory (raw files, sparse or not) and guests of this host (vm:NAME) and says, for all of them together, how many pages are zero, identical to another, a small patch of another, or compressible, in this order, and how many blocks repeat below the page. Identical pages are found in as many passes as --memory asks for.`,
  flags: [
    ...agentFlags,
    {
      form: '--shape <detector>',
      summary: 'how similar pages are found: k hashes of s lines, c pages kept under each',
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
    if (what === 'analyze') return await analyze(invocation, targets)
    throw new SubpageError('BAD_ARGUMENT', 'say `subpage density analyze IMAGES…`')
  },
}

async function analyze(invocation: Invocation, targets: string[]): Promise<void> {
  if (targets.length === 0)
    throw new SubpageError('BAD_ARGUMENT', 'analyze needs images of memory, or vm:NAME for a guest')
  const { survey } = await import('../../density/survey.ts')
  const { parseShape } = await import('../../density/shape.ts')
  const { surveyReport } = await import('../density-report.ts')
  const images = await Promise.all(targets.map((target) => imageOf(invocation, target)))
  const found = await survey(images, {
    shape: parseShape(text(invocation, 'shape')),
    depth: text(invocation, 'depth') as SurveyDepth,
    memoryBytes: parseSize(text(invocation, 'memory')),
  })
  invocation.output.data(found, () => surveyReport(found))
}

async function imageOf(invocation: Invocation, target: string): Promise<SurveyImage> {
  const { rawImage } = await import('../../density/survey-images.ts')
  if (!target.startsWith('vm:')) return rawImage(target)
  const { guestFiles } = await import('../../qemu/guest-files.ts')
  const name = target.slice('vm:'.length)
  const { ram } = guestFiles(stateOf(invocation), name)
  if (!existsSync(ram)) throw new SubpageError('GUEST_UNKNOWN', `no guest "${name}" has memory on this host`)
  return rawImage(ram, target)
}
