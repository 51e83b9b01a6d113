/** `subpage libvirt`: which of libvirt's domains can be protected, and what they need for it. */
import { normalize } from 'node:path'
import { SubpageError } from '../../errors.ts'
import type { ListedDomain, Preparation } from '../../libvirt/domains.ts'
import { type Command, type Invocation, read } from '../command.ts'
import { table } from '../output.ts'

const verbs = ['list', 'prepare']

export const libvirtCommand: Command = {
  name: 'libvirt',
  args: ['<what>', '[domain]'],
  completes: [verbs],
  summary: "libvirt's domains: which can be protected, and what they need",
  help: `Examples:
  subpage libvirt list
  subpage libvirt prepare web            # shows what would be changed, as diff -u does
  subpage libvirt prepare web --apply
  subpage libvirt prepare web --undo

prepare gives the domain its RAM in a file of subpage, control sockets beside those of libvirt, and the shim; of SPICE it makes VNC. The guest has them after it was shut down and started again once. --apply and --undo may be repeated; --undo takes back what --apply has added, and nothing else. docs/libvirt.md says what AppArmor and SELinux must allow.`,
  flags: [
    { form: '--connect <uri>', summary: "libvirt's connection", default: 'qemu:///system' },
    {
      form: '--directory <dir>',
      summary: "where prepared domains have their control sockets; QEMU's user must be able to reach it",
      default: '/var/lib/libvirt/qemu/subpage',
    },
    { form: '--apply', summary: 'prepare: make the changes' },
    { form: '--undo', summary: 'prepare: take them back' },
  ],
  async run(invocation) {
    const { connectVirsh } = await import('../../libvirt/virsh.ts')
    const [what, domain] = invocation.args
    const { apply, undo } = invocation.flags
    const virsh = read(invocation, 'connect', connectVirsh)
    const directory = read(invocation, 'directory', wholePath)
    if (what === 'list' && domain === undefined && !apply && !undo) {
      const { listDomains } = await import('../../libvirt/domains.ts')
      const domains = await listDomains(virsh)
      return invocation.output.data({ domains }, () => listed(domains))
    }
    if (what !== 'prepare' || domain === undefined)
      throw new SubpageError(
        'BAD_ARGUMENT',
        verbs.includes(String(what))
          ? 'write subpage libvirt list, or subpage libvirt prepare DOMAIN'
          : `"${what}" is not one of ${verbs.join(', ')}`,
      )
    if (apply && undo) throw new SubpageError('BAD_ARGUMENT', 'give --apply or --undo, not both')
    const { planPreparation } = await import('../../libvirt/domains.ts')
    const plan = await planPreparation(virsh, directory, domain, undo === true)
    await tell(invocation, plan)
  },
}

async function tell({ flags, output }: Invocation, plan: Preparation): Promise<void> {
  const { name, before, after, running } = plan
  const diff = await differenceOf(name, before, after)
  const applied = flags.apply === true || flags.undo === true
  if (applied) await plan.apply()
  const changed = diff !== ''
  output.data({ name, changed, applied, running, diff }, () =>
    changed ? diff : flags.undo ? `${name} is not prepared` : `${name} is prepared already`,
  )
  if (changed && !applied)
    output.note(
      `nothing was changed: subpage libvirt prepare ${name} ${flags.undo ? '--undo' : '--apply'} does it`,
    )
  if (changed && applied && running)
    output.note(
      `${name} runs as it was started: shut it down and start it again (virsh shutdown ${name}, virsh start ${name}; a reboot from within is not enough)`,
    )
}

/** As diff -u shows it; empty where there is none. */
async function differenceOf(name: string, before: string, after: string): Promise<string> {
  if (before === after) return ''
  const { createTwoFilesPatch } = await import('diff')
  const patch = createTwoFilesPatch(`${name}.xml`, `${name}.xml (changed)`, before, after, '', '', {
    context: 3,
  })
  return patch.replace(/^=+\n/, '')
}

const words: Record<ListedDomain['protectable'], string> = {
  yes: 'yes',
  'after-restart': 'when it was shut down and started',
  'after-prepare': 'after subpage libvirt prepare',
  no: 'no',
}

function listed(domains: ListedDomain[]): string {
  if (domains.length === 0) return 'libvirt has no domains'
  const rows = domains.map(({ name, running, protectable, refusals, changes }) => [
    name,
    running ? 'running' : 'shut off',
    words[protectable],
    [...refusals, ...changes].map(({ part, reason }) => `${part}: ${reason}`).join('; '),
  ])
  return table([['DOMAIN', 'STATE', 'CAN BE PROTECTED', 'WHY NOT, OR WHAT CHANGES'], ...rows])
}

/** @throws SubpageError BAD_ARGUMENT */
function wholePath(text: string): string {
  if (/^\/[\w./+-]*$/.test(text)) return normalize(text)
  throw new SubpageError(
    'BAD_ARGUMENT',
    `"${text}" is not the whole path of a directory, of letters, digits and ./+_- only: QEMU and the dynamic linker read it`,
  )
}
