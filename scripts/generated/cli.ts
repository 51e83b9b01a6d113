/** docs/cli.md: the machine contract and every command, from the command table. */
import type { Command, Flag } from '../../src/cli/command.ts'
import { commands } from '../../src/cli/commands.ts'
import { exitStatus } from '../../src/errors.ts'

const meanings: Record<keyof typeof exitStatus, string> = {
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
data is JSON: one object, or one line for each event; errors are \`{"code", "message"}\` on standard error, with the codes of
[errors.md](errors.md). Every option can also be given as \`SUBPAGE_OPTION\` in the environment (\`--epoch\` as
\`SUBPAGE_EPOCH\`); the command line wins. \`NO_COLOR\` is respected. Sizes are written 512M or 2G, times 25ms or 1s.

This page is generated from the command table; \`npm run generate\` renews it.

## Exit statuses

| status | meaning |
|---|---|
`

export function renderCli(): string {
  const statuses = (Object.keys(exitStatus) as (keyof typeof exitStatus)[])
    .map((key) => `| ${exitStatus[key]} | ${meanings[key]} |`)
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
