/**
 * What the installed QEMU can do: asked over QMP, of a QEMU without a machine. Specification: QEMU's docs/interop/qmp-spec and
 * qemu-qmp-ref (query-commands, qom-list-properties).
 */
import { qemuBinary } from '../launch.ts'
import { type HostItem, item } from './item.ts'
import { lastLine, probeQemu } from './probe-qemu.ts'

const timeMsMax = 10_000
const install = 'apt-get install qemu-system-x86'

/** What a checkpoint and a failover ask of QEMU. */
const neededCommands = [
  ...['stop', 'cont', 'query-status', 'xen-save-devices-state', 'human-monitor-command'],
  ...['migrate-incoming', 'migrate-set-capabilities', 'announce-self', 'qom-set', 'object-add'],
]

export interface QemuAbilities {
  version: string
  commands: Set<string>
  /** It has filter-buffer. */
  buffers: boolean
}

export async function checkQemu(): Promise<HostItem[]> {
  const outcome = await probeQemu(
    ['-M', 'none', '-nodefaults', '-no-user-config', '-display', 'none', '-qmp', 'stdio'],
    { stdin: questions, timeMsMax },
  )
  const purpose = 'runs the guests'
  if (outcome.how === 'missing')
    return [item('QEMU', purpose, `${qemuBinary} is not installed`, { otherwise: false, remedy: install })]
  const abilities = parseAnswers(outcome.stdout)
  if (!abilities) {
    const remedy = `try \`${qemuBinary} -M none -nodefaults -display none -qmp stdio\`; ${install}`
    return [
      item('QEMU', purpose, `does not answer: ${lastLine(outcome, timeMsMax)}`, { otherwise: false, remedy }),
    ]
  }
  return [item('QEMU', purpose, abilities.version), commandItem(abilities), bufferItem(abilities)]
}

const questions = [
  { execute: 'qmp_capabilities' },
  { execute: 'query-commands', id: 'commands' },
  // Of this type alone: a list of all has QEMU load all its modules, and it ends when one is of another version than it is.
  { execute: 'qom-list-properties', arguments: { typename: 'filter-buffer' }, id: 'buffer' },
  { execute: 'quit' },
]
  .map((question) => `${JSON.stringify(question)}\n`)
  .join('')

interface Answer {
  QMP?: { version: { qemu: { major: number; minor: number; micro: number } } }
  id?: string
  return?: { name: string }[]
  error?: { desc: string }
}

/** Undefined when the answers are not whole. @param text what QEMU wrote on its control channel, a JSON object a line */
export function parseAnswers(text: string): QemuAbilities | undefined {
  const answers = text.split('\n').flatMap((line) => {
    try {
      return [JSON.parse(line) as Answer]
    } catch {
      return [] // A warning between the answers, or a line cut off at the end.
    }
  })
  const version = answers.find(({ QMP }) => QMP)?.QMP?.version.qemu
  const commands = answers.find(({ id }) => id === 'commands')?.return?.map(({ name }) => name)
  const buffer = answers.find(({ id }) => id === 'buffer')
  if (!version || !commands || !buffer) return undefined
  return {
    version: `${version.major}.${version.minor}.${version.micro}`,
    commands: new Set(commands),
    buffers: buffer.return !== undefined,
  }
}

function commandItem({ commands }: QemuAbilities): HostItem {
  const missing = neededCommands.filter((name) => !commands.has(name))
  const purpose = 'saves the state of the devices at a checkpoint, loads it at a failover'
  return missing.length === 0
    ? item('QEMU commands', purpose, 'all there, xen-save-devices-state among them')
    : item('QEMU commands', purpose, `missing: ${missing.join(', ')}`, {
        otherwise: false,
        remedy: `this QEMU is built without them; Debian's has them: ${install}`,
      })
}

function bufferItem({ buffers }: QemuAbilities): HostItem {
  const purpose = "holds a guest's packets back until the standby has the checkpoint they belong to"
  return buffers
    ? item('network buffers', purpose, 'filter-buffer')
    : item('network buffers', purpose, 'this QEMU has no filter-buffer', {
        otherwise: 'degraded',
        remedy: `Debian's QEMU has it: ${install}`,
      })
}
