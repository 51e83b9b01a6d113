/**
 * The configuration file of an agent, in TOML: its options by their names, `tls-ca = "/etc/subpage/ca.crt"`. The schema is made from
 * the table of commands. The command line wins over the environment, that over the file, and the file over defaults.
 */
import { existsSync } from 'node:fs'
import { type TSchema, Type } from '#typebox'
import { Errors } from '#typebox/value'
import { SubpageError } from '../errors.ts'
import { readInput } from '../input-file.ts'
import { type Command, type Flag, flagName, type Invocation, isSwitch } from './command.ts'

export const systemConfig = '/etc/subpage/agent.toml'

/** What says how this one process is started. */
const notInFile = ['config', 'check-config', 'ephemeral', 'state']

const keyOf = ({ form }: Flag) => /--([a-z-]+)/.exec(form)![1]!
const isList = ({ form }: Flag) => /<dirs>/.test(form)

export const configFlags = ({ flags }: Command): Flag[] =>
  flags.filter((flag) => !notInFile.includes(keyOf(flag)))

/** Of the file, for one command. */
function configSchema(flags: readonly Flag[]): TSchema {
  const one = (flag: Flag): TSchema => {
    if (isSwitch(flag)) return Type.Boolean()
    if (flag.choices) return Type.Enum(flag.choices)
    const text = Type.String({ minLength: 1 })
    return isList(flag) ? Type.Union([text, Type.Array(text)]) : text
  }
  const members = flags.map((flag) => [keyOf(flag), Type.Optional(one(flag))])
  return Type.Object(Object.fromEntries(members), { additionalProperties: false })
}

/**
 * The invocation with what the file adds.
 * @returns file the one that was read
 * @throws SubpageError BAD_ARGUMENT, which names the file, and the line or the key
 */
export async function withConfig(
  command: Command,
  invocation: Invocation,
): Promise<{ invocation: Invocation; file?: string }> {
  const file = fileFor(invocation)
  if (file === undefined) return { invocation }
  const found = await readConfig(command, file)
  const flags = { ...invocation.flags }
  const sources = { ...invocation.sources }
  for (const flag of configFlags(command)) {
    const name = flagName(flag)
    const value = found[keyOf(flag)]
    // What has a source was given by somebody; a default has none.
    if (value === undefined || sources[name] !== undefined) continue
    flags[name] = Array.isArray(value) ? value.join(':') : (value as string | boolean)
    sources[name] = `${file}: ${keyOf(flag)}`
  }
  return { invocation: { ...invocation, flags, sources }, file }
}

/** An agent of tests, or in another directory, is another agent than the host's. */
function fileFor({ flags }: Invocation): string | undefined {
  if (flags.config !== undefined) return String(flags.config)
  const isHosts = process.geteuid?.() === 0 && flags.state === undefined && !flags.ephemeral
  return isHosts && existsSync(systemConfig) ? systemConfig : undefined
}

async function readConfig(command: Command, file: string): Promise<Record<string, unknown>> {
  const text = readInput(file, 'the configuration file').toString('utf8')
  const { parse, TomlError } = await import('smol-toml')
  let found: Record<string, unknown>
  try {
    found = parse(text)
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause
    const [why] = cause.message.split('\n')
    throw new SubpageError('BAD_ARGUMENT', `${file}, line ${cause.line}, column ${cause.column}: ${why}`, {
      cause,
    })
  }
  const flags = configFlags(command)
  const known = flags.map(keyOf)
  const strange = Object.keys(found).find((key) => !known.includes(key))
  if (strange !== undefined)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${file}: ${strange} is ${notInFile.includes(strange) ? 'for the command line only' : `no option of subpage ${command.name}: there are ${known.join(', ')}`}`,
    )
  const schema = configSchema(flags)
  const [error] = Errors(schema, found)
  if (error)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${file}: ${error.instancePath.slice(1)}: ${wants(flags, error.instancePath)}`,
    )
  return found
}

function wants(flags: readonly Flag[], path: string): string {
  const flag = flags.find((one) => keyOf(one) === path.split('/')[1])
  if (!flag) return 'it has a wrong form'
  if (isSwitch(flag)) return 'write true or false'
  if (flag.choices) return `write one of ${flag.choices.map((choice) => `"${choice}"`).join(', ')}`
  return isList(flag) ? 'write a text in quotes, or a list of them' : 'write a text in quotes'
}
