/**
 * From words to an invocation: commander's parser is built from the table of commands, with the environment behind it
 * (src/environment.ts has its rules). Nothing runs here.
 */
import { CommanderError, Option, Command as Parser } from 'commander'
import { setting, switchSetting, unknownSettings } from '../environment.ts'
import { exitStatus, SubpageError } from '../errors.ts'
import { release } from '../release.ts'
import { type Command, type Flag, flagName, type Invocation, isSwitch, variableOf } from './command.ts'

export const jsonFlag: Flag = { form: '--json', summary: 'print JSON for programs' }

export type Parsed =
  | { kind: 'run'; command: Command; invocation: Omit<Invocation, 'output'>; json: boolean }
  /** Help and the version. */
  | { kind: 'shown'; out: string }
  /** `said` is for people, `message` for programs. */
  | { kind: 'wrong'; said: string; message: string; json: boolean }

/** @param argv without the program's own name */
export function parseCommandLine(argv: readonly string[], commands: readonly Command[]): Parsed {
  const { own, rest } = splitRest(argv)
  let [out, said] = ['', '']
  let chosen: Omit<Parsed & { kind: 'run' }, 'kind'> | undefined
  const program = new Parser('subpage')
    .description(
      'Keeps a running virtual machine alive on a second host, by sending only the bytes that changed.',
    )
    .version(release)
    .showHelpAfterError('(see subpage help, or subpage help COMMAND)')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => {
        out += text
      },
      writeErr: (text) => {
        said += text
      },
    })
  try {
    for (const command of commands)
      addCommand(program, command, rest, (invocation, json) => {
        chosen = { command, invocation, json }
      })
    program.parse(own, { from: 'user' })
  } catch (thrown) {
    const json = asksForJson(own)
    if (thrown instanceof CommanderError)
      return thrown.exitCode === 0
        ? { kind: 'shown', out }
        : { kind: 'wrong', said, ...wordsOf(thrown), json }
    if (!(thrown instanceof SubpageError)) throw thrown
    return {
      kind: 'wrong',
      said: `subpage: ${thrown.message} (${thrown.code})\n`,
      message: thrown.message,
      json,
    }
  }
  if (!chosen) throw new TypeError('a command line was neither right nor wrong')
  return { kind: 'run', ...chosen }
}

/** What the environment holds under our prefix that nothing reads. */
export function strangeSettings(commands: readonly Command[]): string[] {
  return unknownSettings([jsonFlag, ...commands.flatMap(({ flags }) => flags)].map(variableOf))
}

function wordsOf({ code, message }: CommanderError): { message: string } {
  return {
    message:
      code === 'commander.help'
        ? 'say what to do: subpage help lists the commands'
        : message.replace(/^error: /, '').trim(),
  }
}

/** Before anything else is known of the command line. */
function asksForJson(own: readonly string[]): boolean {
  try {
    return own.includes('--json') || switchSetting(variableOf(jsonFlag))
  } catch {
    return false // What is wrong with the variable may itself be what is said, in words.
  }
}

/** Splits at the first `--`: what follows belongs to another program. */
function splitRest(argv: readonly string[]): { own: string[]; rest: string[] } {
  const at = argv.indexOf('--')
  return at < 0 ? { own: [...argv], rest: [] } : { own: argv.slice(0, at), rest: argv.slice(at + 1) }
}

function option(flag: Flag): Option {
  const built = new Option(flag.form, flag.summary)
  const variable = variableOf(flag)
  if (setting(variable) !== undefined) built.env(variable)
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
  choose: (invocation: Omit<Invocation, 'output'>, json: boolean) => void,
): void {
  const parser = program.command(command.name).summary(command.summary).description(command.summary)
  for (const argument of command.args) parser.argument(argument)
  if (command.anyOptions) parser.allowUnknownOption()
  const flags = [...command.flags, jsonFlag]
  for (const flag of flags) parser.addOption(option(flag))
  if (command.rest !== undefined)
    parser.usage(`${[...command.args, '[options]'].join(' ')} -- ${command.rest}`)
  parser.addHelpText('after', `\n${command.help}`)
  parser.action((...given) => {
    const args = given
      .slice(0, command.args.length)
      .flat()
      .filter((value) => value !== undefined)
    if (rest.length > 0 && command.rest === undefined)
      parser.error(`error: ${command.name} takes nothing after --`, { exitCode: exitStatus.usage })
    args.forEach((arg, i) => {
      if (arg === '')
        throw new SubpageError(
          'BAD_ARGUMENT',
          `${command.args[Math.min(i, command.args.length - 1)]} is empty`,
        )
    })
    const { values, sources } = valuesOf(parser, flags)
    choose({ args, flags: values, sources, rest }, values.json === true)
  })
}

function valuesOf(
  parser: Parser,
  flags: readonly Flag[],
): {
  values: Invocation['flags']
  sources: Invocation['sources']
} {
  const values: Invocation['flags'] = {}
  const sources: Invocation['sources'] = {}
  for (const flag of flags) {
    const name = flagName(flag)
    const value = parser.getOptionValue(name) as string | boolean | undefined
    if (value === undefined) continue
    const source = parser.getOptionValueSource(name)
    const fromEnvironment = source === 'env'
    if (source !== 'default')
      sources[name] = fromEnvironment ? variableOf(flag) : `--${/--([a-z-]+)/.exec(flag.form)?.[1]}`
    values[name] = fromEnvironment && isSwitch(flag) ? switchSetting(variableOf(flag)) : value
    if (value === '') throw new SubpageError('BAD_ARGUMENT', `${sources[name]} is empty`)
  }
  return { values, sources }
}
