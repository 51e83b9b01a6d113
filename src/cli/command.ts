/**
 * The form of a command. Help, documentation (docs/cli.md), environment variables and parsing all come from the one
 * table in commands.ts. What only one command needs it imports when it runs: every start loads the whole table.
 */
import { SubpageError } from '../errors.ts'
import type { Output } from './output.ts'

export interface Flag {
  /** As in commander: "--epoch <ms>". */
  form: string
  summary: string
  default?: string
  choices?: string[]
  /** May be given several times; the values come in one, separated by commas. */
  many?: true
}

/** What a shell offers for an argument: names of guests, files, or these words. */
export type Completes = 'guest' | 'file' | string[]

export interface Invocation {
  args: string[]
  /** Values by flag name in camel case; absent flags are absent. */
  flags: Record<string, string | boolean | undefined>
  /** How people gave a flag: `--epoch`, or `SUBPAGE_EPOCH`; a default was given by nobody. */
  sources: Record<string, string>
  /** What came after `--`. */
  rest: string[]
  output: Output
}

export interface Command {
  name: string
  /** As in commander: "<name>" required, "[name]" optional. */
  args: string[]
  /** What shells offer for each of them; nothing without. */
  completes?: (Completes | 'text')[]
  summary: string
  /** Longer help, with an example. */
  help: string
  flags: Flag[]
  /** Takes options of another program after `--`; the text names them. */
  rest?: string
  /** Takes whatever is given: it only says what is missing. */
  anyOptions?: true
  /** Returns the exit status; none means 0. */
  // biome-ignore lint/suspicious/noConfusingVoidType: most commands return nothing
  run(invocation: Invocation): Promise<number | void>
}

/** The value of a flag that has a default or is required. */
export function text(invocation: Invocation, flag: string): string {
  return String(invocation.flags[flag])
}

/** Reads the value of a flag with `parse`. @throws what `parse` throws; BAD_ARGUMENT names the option or the variable */
export function read<T>(invocation: Invocation, flag: string, parse: (value: string) => T): T {
  try {
    return parse(text(invocation, flag))
  } catch (cause) {
    if (!(cause instanceof SubpageError) || cause.code !== 'BAD_ARGUMENT') throw cause
    throw new SubpageError('BAD_ARGUMENT', `${sourceOf(invocation, flag)}: ${cause.message}`, { cause })
  }
}

/** How the value of a flag was given, or would be. */
function sourceOf({ sources }: Invocation, flag: string): string {
  return sources[flag] ?? optionOf(flag)
}

const optionOf = (flag: string) => `--${flag.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** The variable that stands for a flag. */
export function variableOf({ form }: Pick<Flag, 'form'>): string {
  return `SUBPAGE_${longName(form).toUpperCase().replaceAll('-', '_')}`
}

/** The name under which an invocation has it: `--api-token-file <file>` is apiTokenFile. */
export function flagName({ form }: Pick<Flag, 'form'>): string {
  return longName(form).replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())
}

export const isSwitch = ({ form }: Pick<Flag, 'form'>) => !/[<[]/.test(form)

function longName(form: string): string {
  const name = /--([a-z-]+)/.exec(form)?.[1]
  if (name === undefined) throw new TypeError(`${form} has no long name`)
  return name
}
