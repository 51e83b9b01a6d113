/** man/subpage.1 and a page for each command, from the table of commands: man(7) as groff and mandoc read it. */
import type { Command, Flag } from '../../src/cli/command.ts'
import { variableOf } from '../../src/cli/command.ts'
import { commands } from '../../src/cli/commands.ts'
import { jsonFlag } from '../../src/cli/parse.ts'
import { exitStatus } from '../../src/errors.ts'
import { release } from '../../src/release.ts'
import { statusMeanings } from './cli.ts'
import type { GeneratedFile } from './list.ts'

export const manPages: GeneratedFile[] = [
  { path: 'man/subpage.1', render: overview },
  ...commands.map((command) => ({
    path: `man/subpage-${command.name}.1`,
    render: () => page(command),
  })),
]

const about =
  'Keeps a running virtual machine alive on a second host, by sending only the bytes that changed.'

function overview(): string {
  const list = commands.map(
    ({ name, summary }) => `.TP\n.BR subpage\\-${escaped(name)} (1)\n${line(summary)}`,
  )
  const statuses = (Object.keys(exitStatus) as (keyof typeof exitStatus)[]).map(
    (key) => `.TP\n.B ${exitStatus[key]}\n${line(statusMeanings[key])}`,
  )
  return `${heading('subpage')}
.SH NAME
subpage \\- keeps a running virtual machine alive on a second host
.SH SYNOPSIS
.B subpage
.I command
.RI [ arguments ]
.RI [ options ]
.SH DESCRIPTION
${line(about)}
.SH COMMANDS
${list.join('\n')}
.SH ENVIRONMENT
Every option can be given as a variable: \\fB\\-\\-epoch\\fR as \\fBSUBPAGE_EPOCH\\fR. The command line wins.
.SH EXIT STATUS
${statuses.join('\n')}
.SH SEE ALSO
.BR qemu (1),
.BR virsh (1)
`
}

function page(command: Command): string {
  const { name, summary, args, rest, flags, help } = command
  const others = commands.filter((one) => one !== command && new RegExp(`subpage ${one.name}\\b`).test(help))
  const after = rest === undefined ? '' : ` \\-\\- ${escaped(rest)}`
  return `${heading(`subpage-${name}`)}
.SH NAME
subpage\\-${escaped(name)} \\- ${escaped(summary)}
.SH SYNOPSIS
.B subpage ${escaped(name)}
${args.map((arg) => `.I ${escaped(arg.replace(/[<>]/g, ''))}\n`).join('')}[\\fIoptions\\fR]${after}
.SH DESCRIPTION
${prose(help)}
.SH OPTIONS
${[...flags, jsonFlag].map(option).join('\n')}
.SH SEE ALSO
${['subpage', ...others.map((one) => `subpage-${one.name}`)].map((of) => `.BR ${escaped(of)} (1)`).join(',\n')}
`
}

const heading = (name: string) =>
  `.\\" Generated from the table of commands by \`npm run generate\`: change it there.
.TH ${escaped(name.toUpperCase())} 1 "" "subpage ${release}" "subpage"`

function option(flag: Flag): string {
  const { form, summary, choices, default: value } = flag
  const [, names = form, argument] = /^([^<[]*?)(?: ([<[].*))?$/.exec(form) ?? []
  const of = argument === undefined ? '' : ` \\fI${escaped(argument.replace(/[<>]/g, ''))}\\fR`
  const more = [
    ...(choices ? [`One of ${choices.join(', ')}.`] : []),
    ...(value === undefined ? [] : [`Default: ${value}.`]),
    `Variable: ${variableOf(flag)}.`,
  ]
  return `.TP\n\\fB${escaped(names)}\\fR${of}\n${line(`${summary}. ${more.join(' ')}`)}`
}

/** Indented lines are examples; an empty line is the end of a paragraph. */
function prose(help: string): string {
  const out: string[] = []
  let inExample = false
  for (const text of help.split('\n')) {
    const isExample = text.startsWith('  ')
    if (isExample !== inExample) out.push(isExample ? '.PP\n.RS 4\n.nf' : '.fi\n.RE')
    inExample = isExample
    out.push(text === '' ? '.PP' : line(text.replace(/^ {2}/, '')))
  }
  if (inExample) out.push('.fi\n.RE')
  return out
    .join('\n')
    .replace(/(\.PP\n)+\.PP/g, '.PP')
    .replace(/\.RE\n\.PP/g, '.RE\n.PP')
}

/** A line of text, which no sign of its own makes a request of. */
const line = (text: string) => escaped(text).replace(/^([.'])/, '\\&$1')

const escaped = (text: string) =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('"', '\\(dq')
    .replace(
      /[^\x20-\x7e]/gu,
      (sign) => `\\[u${sign.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}]`,
    )
