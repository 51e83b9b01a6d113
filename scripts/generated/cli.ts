/** docs/cli.md: the machine contract and every command, from the command table. */
import type { Command, Flag } from '../../src/cli/command.ts'
import { commands } from '../../src/cli/commands.ts'
import { exitStatus } from '../../src/errors.ts'

export const statusMeanings: Record<keyof typeof exitStatus, string> = {
  ok: 'done',
  failed: 'failed; the message says why',
  usage: 'the command line is wrong',
  degraded: 'a protected guest is not safe right now',
  notProtected: 'the guest is not protected',
  notFound: 'no such guest',
  heldElsewhere: 'another process holds it',
  refused: 'not allowed',
  lacksFeature: 'this host lacks something; see `subpage check`',
  interrupted: 'interrupted',
}

const heading = `# Command line

\`subpage COMMAND [NAME] [options]\`. Data goes to standard output, everything else to standard error. With \`--json\` the
data is JSON: one object, or one line for each event or interval. Standard error then has JSON lines too: an error, of the
command line as well, is \`{"code", "message"}\` with a code of [errors.md](errors.md), a warning is \`{"warning"}\`; progress is
not shown.

Every option can also be given as \`SUBPAGE_OPTION\` in the environment (\`--epoch\` as \`SUBPAGE_EPOCH\`); the command line wins.
An empty variable is not given. An option without a value is off for 0, false, no and off, on for 1, true, yes and on, and
anything else is an error. A variable that begins with \`SUBPAGE_\` and is no setting is named in a warning. \`NO_COLOR\` is
respected.

What a command writes to a file that you name (\`-o\`, \`--html\`, \`--csv\`, certificates) is called NAME.part until it is whole;
a command that fails leaves the older file. A file that exists is replaced only with \`--force\`, and so are CSV files in a folder
that has some. A link to a file is followed; \`/dev/null\` keeps nothing; directories, pipes, sockets, other devices, \`/dev/stdout\` and
links to nowhere are refused. All this is found out before anything is started.

Sizes are written 512M or 2G; a number alone means MiB. Times are written 25ms, 10s, 5min or 1h; a number alone means ms.
Shares are written 1% or 0.01.

This page is generated from the command table; \`npm run generate\` renews it.

## Exit statuses

| status | meaning |
|---|---|
`

export function renderCli(): string {
  const statuses = (Object.keys(exitStatus) as (keyof typeof exitStatus)[])
    .map((key) => `| ${exitStatus[key]} | ${statusMeanings[key]} |`)
    .join('\n')
  return `${heading}${statuses}\n\n${commands.map(section).join('\n')}`
}

function section(command: Command): string {
  const usage = [
    'subpage',
    command.name,
    ...command.args,
    '[options]',
    ...(command.rest ? ['--', command.rest] : []),
  ]
  return `## ${command.name}

${command.summary[0]?.toUpperCase()}${command.summary.slice(1)}.

\`\`\`
${usage.join(' ')}
\`\`\`

${prose(command.help)}
${command.flags.length > 0 ? `\n| option | meaning | default |\n|---|---|---|\n${command.flags.map(row).join('\n')}\n` : ''}`
}

/** An indented line of help is an example. */
function prose(help: string): string {
  return help.replace(/^ {2}(.*)$/gm, '\n```\n$1\n```').replace(/\n{3,}/g, '\n\n')
}

function row({ form, summary, default: value, choices }: Flag): string {
  const oneOf = choices ? ` (${choices.join(', ')})` : ''
  return `| \`${form}\` | ${summary}${oneOf} | ${value === undefined ? '' : `\`${value}\``} |`
}
