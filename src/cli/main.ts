#!/usr/bin/env node
/** The command line: builds commander's parser from the table of commands, runs one, turns errors into exit statuses. */
import { Option, Command as Parser } from 'commander'
import { asSubpageError, exitStatus } from '../errors.ts'
import { release } from '../release.ts'
import type { Command, Flag } from './command.ts'
import { commands } from './commands.ts'
import { createOutput } from './output.ts'

/** Splits at the first `--`: what follows belongs to another program. */
function splitRest(argv: string[]): { own: string[]; rest: string[] } {
  const at = argv.indexOf('--')
  return at < 0 ? { own: argv, rest: [] } : { own: argv.slice(0, at), rest: argv.slice(at + 1) }
}

function option(flag: Flag): Option {
  const built = new Option(flag.form, flag.summary)
  const name = /--([a-z-]+)/.exec(flag.form)?.[1] ?? ''
  built.env(`SUBPAGE_${name.toUpperCase().replaceAll('-', '_')}`)
  if (flag.default !== undefined) built.default(flag.default)
  if (flag.choices) built.choices(flag.choices)
  if (flag.many)
    built.argParser((value: string, former: string | undefined) =>
      former === undefined ? value : `${former},${value}`,
    )
  return built
}

function addCommand(
  program: Parser,
  command: Command,
  rest: string[],
  finish: (status: number) => void,
): void {
  const parser = program.command(command.name).summary(command.summary).description(command.summary)
  for (const argument of command.args) parser.argument(argument)
  for (const flag of command.flags) parser.addOption(option(flag))
  parser.addOption(option({ form: '--json', summary: 'print JSON for programs' }))
  if (command.rest !== undefined)
    parser.usage(`${[...command.args, '[options]'].join(' ')} -- ${command.rest}`)
  parser.addHelpText('after', `\n${command.help}`)
  parser.action(async (...given) => {
    const flags = given[command.args.length]
    const args = given
      .slice(0, command.args.length)
      .flat()
      .filter((value) => value !== undefined)
    if (rest.length > 0 && command.rest === undefined)
      parser.error(`${command.name} takes nothing after --`, { exitCode: exitStatus.usage })
    finish(
      (await command.run({ args, flags, rest, output: createOutput(flags.json === true) })) ?? exitStatus.ok,
    )
  })
}

async function main(): Promise<void> {
  const { own, rest } = splitRest(process.argv.slice(2))
  const program = new Parser('subpage')
    .description(
      'Keeps a running virtual machine alive on a second host, by sending only the bytes that changed.',
    )
    .version(release)
    .showHelpAfterError('(see subpage help, or subpage help COMMAND)')
    .exitOverride((end) => process.exit(end.exitCode === 0 ? exitStatus.ok : exitStatus.usage))
  for (const command of commands)
    addCommand(program, command, rest, (status) => {
      process.exitCode = status
    })
  try {
    await program.parseAsync(own, { from: 'user' })
  } catch (thrown) {
    const error = asSubpageError(thrown)
    const json = own.includes('--json') || process.env.SUBPAGE_JSON !== undefined
    process.stderr.write(
      json
        ? `${JSON.stringify({ code: error.code, message: error.message })}\n`
        : `subpage: ${error.message} (${error.code})\n`,
    )
    if (error.code === 'INTERNAL' && !json) process.stderr.write(`${(thrown as Error).stack}\n`)
    process.exitCode = error.exit
  }
}

await main()
